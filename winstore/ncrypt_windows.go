package winstore

import (
	"crypto"
	"crypto/rsa"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Providers of keys in CNG.
//
// https://learn.microsoft.com/windows/win32/seccertenroll/cng-key-storage-providers
const (
	softwareProvider = "Microsoft Software Key Storage Provider"
	platformProvider = "Microsoft Platform Crypto Provider"
)

const keyBits = 2048 // what IMDS v2 demands

// cngKey is an open key of CNG.
type cngKey interface {
	nativeKey
	isolated() (bool, error) // by virtualization-based security: a KeyGuard key
	remove() error           // deletes the key; the handle is closed then
}

// ncrypt is CNG's key storage, in ncrypt.dll.
type ncrypt struct{}

func (ncrypt) open(provider, name string) (cngKey, error) {
	k := &ncryptKey{}
	err := withProvider(provider, name, func(storage windows.Handle, name *uint16) error {
		return failed("NCryptOpenKey", ncryptOpenKey(storage, &k.handle, name, 0, ncryptSilent))
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// create makes an RSA key that cannot be exported. One without a name is not kept: it goes with its handle.
func (ncrypt) create(provider, name string, flags uint32) (cngKey, error) {
	k := &ncryptKey{}
	err := withProvider(provider, name, func(storage windows.Handle, name *uint16) error {
		if *name == 0 {
			name = nil
		}
		return failed(
			"NCryptCreatePersistedKey",
			ncryptCreatePersistedKey(storage, &k.handle, windows.StringToUTF16Ptr("RSA"), name, 0, flags),
		)
	})
	if err != nil {
		return nil, err
	}
	usage := uint32(ncryptAllowSigning)
	if flags&ncryptVirtualIso != 0 {
		usage = ncryptAllowAllUsages // as MSAL.NET has it: the attestation of a KeyGuard key imports it
	}
	if err := k.finalize(usage, name != ""); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// withProvider opens a provider of keys for as long as f runs.
func withProvider(provider, key string, f func(storage windows.Handle, key *uint16) error) error {
	wide, err := windows.UTF16PtrFromString(key)
	if err != nil {
		return err
	}
	storage, err := openProvider(provider)
	if err != nil {
		return err
	}
	defer ncryptFreeObject(storage)
	return f(storage, wide)
}

// inHardware reads the property that says that a provider keeps its keys in hardware. Windows knows the name of the
// TPM's provider on machines without a TPM too.
func (ncrypt) inHardware(provider string) (bool, error) {
	storage, err := openProvider(provider)
	if err != nil {
		return false, err
	}
	defer ncryptFreeObject(storage)
	const implHardware = 1
	flags, err := flagsProperty(storage, "Impl Type")
	return flags&implHardware != 0, err
}

// flagsProperty reads a property of bits, 0 if the object does not have it.
func flagsProperty(object windows.Handle, name string) (uint32, error) {
	data, err := sized(func(data *byte, size *uint32) error {
		return failed(
			"NCryptGetProperty",
			ncryptGetProperty(object, windows.StringToUTF16Ptr(name), data, *size, size, ncryptSilent),
		)
	})
	if is(err, windows.NTE_NOT_FOUND, windows.NTE_NOT_SUPPORTED, windows.NTE_INVALID_PARAMETER) {
		return 0, nil // as providers say that they do not know it
	}
	var word [4]byte
	copy(word[:], data)
	return binary.LittleEndian.Uint32(word[:]), err
}

func openProvider(name string) (windows.Handle, error) {
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return 0, err
	}
	var storage windows.Handle
	err = ncryptOpenStorageProvider(&storage, wide, 0)
	return storage, failed("NCryptOpenStorageProvider", err)
}

// ncryptKey is an NCRYPT_KEY_HANDLE.
type ncryptKey struct{ handle windows.Handle }

// finalize sets what must be known of a key before it is made: its size, that it cannot be exported, what it may be
// used for. Only the properties of a key that is kept can be kept.
func (k *ncryptKey) finalize(usage uint32, kept bool) error {
	var persist uint32
	if kept {
		persist = ncryptPersist
	}
	for _, p := range []struct {
		name  string
		value uint32
		flags uint32
	}{
		{"Length", keyBits, 0},
		{"Export Policy", 0, persist},
		{"Key Usage", usage, persist},
	} {
		word := binary.LittleEndian.AppendUint32(nil, p.value)
		err := ncryptSetProperty(
			k.handle,
			windows.StringToUTF16Ptr(p.name),
			&word[0],
			uint32(len(word)),
			p.flags|ncryptSilent,
		)
		if is(err, windows.NTE_NOT_SUPPORTED) && p.name != "Length" {
			continue // hardware that exports nothing anyway, or knows one use only
		}
		if err != nil {
			return fmt.Errorf("property %q of the new key: %w", p.name, failed("NCryptSetProperty", err))
		}
	}
	return failed("NCryptFinalizeKey", ncryptFinalizeKey(k.handle, ncryptSilent))
}

// isolated reads the property that proves that the key is one of KeyGuard.
func (k *ncryptKey) isolated() (bool, error) {
	flags, err := flagsProperty(k.handle, "Virtual Iso")
	return flags != 0, err
}

func (k *ncryptKey) publicKey() (*rsa.PublicKey, error) {
	blob, err := sized(func(data *byte, size *uint32) error {
		return failed(
			"NCryptExportKey",
			ncryptExportKey(
				k.handle,
				0,
				windows.StringToUTF16Ptr("RSAPUBLICBLOB"),
				nil,
				data,
				*size,
				size,
				ncryptSilent,
			),
		)
	})
	if err != nil {
		return nil, err
	}
	return parseRSAPublicBlob(blob)
}

// hashNames are CNG's names of the hash functions.
var hashNames = map[crypto.Hash]string{crypto.SHA256: "SHA256", crypto.SHA384: "SHA384", crypto.SHA512: "SHA512"}

func (k *ncryptKey) sign(digest []byte, p padding) ([]byte, error) {
	hash := windows.StringToUTF16Ptr(hashNames[p.hash])
	flags, info := uint32(bcryptPadPKCS1), unsafe.Pointer(&pkcs1PaddingInfo{hash})
	if p.pss {
		flags, info = bcryptPadPSS, unsafe.Pointer(&pssPaddingInfo{hash, uint32(p.salt)})
	}
	return sized(func(data *byte, size *uint32) error {
		return failed(
			"NCryptSignHash",
			ncryptSignHash(k.handle, info, &digest[0], uint32(len(digest)), data, *size, size, flags|ncryptSilent),
		)
	})
}

func (k *ncryptKey) remove() error {
	if err := ncryptDeleteKey(k.handle, ncryptSilent); err != nil {
		k.close()
		return failed("NCryptDeleteKey", err)
	}
	return nil // which closed the handle
}

func (k *ncryptKey) close() { _ = ncryptFreeObject(k.handle) }

// sized calls a function of Windows twice, as is its custom: for the size of what it returns, then for the thing
// itself.
func sized(call func(data *byte, size *uint32) error) ([]byte, error) {
	var size uint32
	if err := call(nil, &size); err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, nil
	}
	data := make([]byte, size)
	if err := call(&data[0], &size); err != nil {
		return nil, err
	}
	return data[:min(int(size), len(data))], nil
}
