package winstore

import (
	"unsafe"

	"github.com/azmtls/azmtls/mtls"
	"golang.org/x/sys/windows"
)

// acquireKey opens the private key of a stored certificate. The key has just signed.
func acquireKey(certificate *windows.CertContext) (*key, error) {
	info, err := keyContainer(certificate)
	if err != nil {
		return nil, err
	}
	var handle windows.Handle
	var spec uint32
	var ours bool
	const flags = windows.CRYPT_ACQUIRE_SILENT_FLAG | windows.CRYPT_ACQUIRE_PREFER_NCRYPT_KEY_FLAG
	if err := windows.CryptAcquireCertificatePrivateKey(certificate, flags, nil, &handle, &spec, &ours); err != nil {
		return nil, failed("CryptAcquireCertificatePrivateKey", err)
	}
	var owner *windows.CertContext
	if !ours {
		owner = windows.CertDuplicateCertificateContext(certificate)
	}
	return acquiredKey(handle, spec, owner, info)
}

// acquiredKey makes a key of either kind of handle. One that has an owner is only lent.
func acquiredKey(handle windows.Handle, spec uint32, owner *windows.CertContext, c container) (*key, error) {
	var native nativeKey = &capiKey{provider: handle, spec: spec}
	strength := mtls.StrengthSoftware
	if spec == windows.CERT_NCRYPT_KEY_SPEC {
		cng := &ncryptKey{handle: handle}
		native, strength = cng, strengthOf(cng, c.provider, ncrypt{})
	}
	if owner != nil {
		native = lentKey{native, owner}
	}
	return newKey(native, strength, c)
}

// lentKey is a handle that belongs to a certificate and lives as long as that.
type lentKey struct {
	nativeKey
	owner *windows.CertContext
}

func (k lentKey) close() { _ = windows.CertFreeCertificateContext(k.owner) }

// strengthOf returns what a key can prove: one whose properties cannot be read counts as weak.
func strengthOf(k cngKey, provider string, storage keyStorage) mtls.BindingStrength {
	if isolated, err := k.isolated(); err == nil && isolated {
		return mtls.StrengthKeyGuard
	}
	if provider == platformProvider {
		if hardware, err := storage.inHardware(provider); err == nil && hardware {
			return mtls.StrengthTPM
		}
	}
	return mtls.StrengthSoftware
}

// keyContainer reads where the key of a certificate lives. The error is CRYPT_E_NOT_FOUND when the certificate has
// none.
func keyContainer(certificate *windows.CertContext) (container, error) {
	data, err := property(certificate, certKeyProvInfoProperty)
	if err != nil {
		return container{}, err
	}
	if len(data) < int(unsafe.Sizeof(keyProvInfo{})) {
		return container{}, failed("CertGetCertificateContextProperty", windows.ERROR_INVALID_DATA)
	}
	info := (*keyProvInfo)(unsafe.Pointer(&data[0])) // its strings lie behind it in data
	c := container{providerType: info.providerType, keySpec: info.keySpec, flags: info.flags}
	c.name, c.provider = stringIn(data, info.container), stringIn(data, info.provider)
	return c, nil
}

// stringIn returns the NUL-terminated UTF-16 string at p, as far as it lies in data.
func stringIn(data []byte, p *uint16) string {
	start := uintptr(unsafe.Pointer(p)) - uintptr(unsafe.Pointer(&data[0]))
	if p == nil || start >= uintptr(len(data)) {
		return ""
	}
	return windows.UTF16ToString(unsafe.Slice(p, (uintptr(len(data))-start)/2))
}

// setKeyContainer links a certificate that is not stored yet to its key.
func setKeyContainer(certificate *windows.CertContext, c container) error {
	name, err := optionalString(c.name)
	if err != nil {
		return err
	}
	provider, err := optionalString(c.provider)
	if err != nil {
		return err
	}
	info := &keyProvInfo{
		container:    name,
		provider:     provider,
		providerType: c.providerType,
		keySpec:      c.keySpec,
		flags:        c.flags,
	}
	err = certSetCertificateContextProperty(certificate, certKeyProvInfoProperty, 0, unsafe.Pointer(info))
	return failed("CertSetCertificateContextProperty", err)
}

// optionalString returns a string for Windows, nil for an empty one: the default.
func optionalString(s string) (*uint16, error) {
	if s == "" {
		return nil, nil
	}
	return windows.UTF16PtrFromString(s)
}

// property reads a property of a certificate.
func property(certificate *windows.CertContext, id uint32) ([]byte, error) {
	return sized(func(data *byte, size *uint32) error {
		return failed(
			"CertGetCertificateContextProperty",
			certGetCertificateContextProperty(certificate, id, data, size),
		)
	})
}
