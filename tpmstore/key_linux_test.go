package tpmstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tpmKeyOf returns the key that a provider gives, which must be one of the TPM.
func tpmKeyOf(t testing.TB, keys Keys) *key {
	t.Helper()
	k, err := keys.Key(t.Context())
	require.NoError(t, err)
	if software, ok := k.(softwareKey); ok {
		require.Empty(t, software.PassedOver())
	}
	require.Equal(t, mtls.StrengthTPM, k.Strength())
	return k.(*key)
}

// on runs commands on a TPM.
func on[T any](t testing.TB, socket string, commands func(*session) (T, error)) T {
	t.Helper()
	value, err := use(t.Context(), newDevice(socket), commands)
	require.NoError(t, err)
	return value
}

// handles returns what the TPM holds, from a first handle on.
func handles(t testing.TB, socket string, from tpm2.TPMHandle) []tpm2.TPMHandle {
	return on(t, socket, func(s *session) ([]tpm2.TPMHandle, error) {
		found, err := tpm2.GetCapability{
			Capability: tpm2.TPMCapHandles, Property: uint32(from), PropertyCount: 100,
		}.Execute(s)
		if err != nil {
			return nil, err
		}
		list, err := found.CapabilityData.Data.Handles()
		return list.Handle, err
	})
}

const firstTransient, firstPersistent = 0x80000000, 0x81000000

func digestOf(hash crypto.Hash) []byte {
	h := hash.New()
	h.Write([]byte("message"))
	return h.Sum(nil)
}

func TestSignatures(t *testing.T) {
	tpm := startTPM(t)
	k := tpmKeyOf(t, Keys{tpm.Socket, t.TempDir()})
	public := k.Public().(*rsa.PublicKey)
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		digest := digestOf(hash)
		signature, err := k.Sign(rand.Reader, digest, hash)
		require.NoError(t, err)
		require.NoError(t, rsa.VerifyPKCS1v15(public, hash, digest, signature))
		for _, salt := range []int{rsa.PSSSaltLengthAuto, rsa.PSSSaltLengthEqualsHash, hash.Size()} {
			signature, err := k.Sign(rand.Reader, digest, &rsa.PSSOptions{Hash: hash, SaltLength: salt})
			require.NoError(t, err)
			exact := &rsa.PSSOptions{SaltLength: hash.Size()}
			require.NoError(t, rsa.VerifyPSS(public, hash, digest, signature, exact))
		}
	}
	require.Empty(t, handles(t, tpm.Socket, firstTransient), "every key is flushed")
	require.Empty(t, handles(t, tpm.Socket, firstPersistent), "nothing is kept in the TPM")
	require.Equal(t, []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}, k.SupportedSignatureAlgorithms())

	for name, test := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"no hash":            {digestOf(crypto.SHA256), nil},
		"SHA-1":              {make([]byte, 20), crypto.SHA1},
		"no prehash":         {[]byte("message"), crypto.Hash(0)},
		"a digest too short": {make([]byte, 31), crypto.SHA256},
		"a salt of 20":       {digestOf(crypto.SHA256), &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 20}},
	} {
		_, err := k.Sign(rand.Reader, test.digest, test.opts)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, mtls.ErrKeyNotNow, name)
	}
}

// The key stays in the TPM, wherever its file goes.
func TestKeyCannotBeExported(t *testing.T) {
	tpm := startTPM(t)
	k := tpmKeyOf(t, Keys{tpm.Socket, t.TempDir()})
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](k.wrapped.public)
	require.NoError(t, err)
	require.Equal(t, tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
	}, area.ObjectAttributes)
	require.Empty(t, area.AuthPolicy.Buffer, "no PCR binds it")
	other := startTPM(t)
	stolen := &key{newDevice(other.Socket), k.wrapped}
	_, err = stolen.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
	require.ErrorIs(t, err, errDead)
}

// The same key serves the next process, also after the machine was off, and two that come at once get one key.
func TestKeyOutlivesItsProcess(t *testing.T) {
	tpm := startTPM(t)
	folder := t.TempDir()
	var children []*child
	for range 3 {
		children = append(children, start(t, "key", tpm.Socket, folder))
	}
	first := children[0].wait()
	require.Contains(t, first, "TPM ")
	require.Equal(t, first, children[1].wait())
	require.Equal(t, first, children[2].wait())
	tpm.Stop()
	require.NoError(t, tpm.Start())
	require.Equal(t, first, start(t, "key", tpm.Socket, folder).wait())
	info, err := os.Stat(filepath.Join(folder, folderName, keyFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

// Many sign at once, with one key and with several, and none waits for ever.
func TestConcurrentSignatures(t *testing.T) {
	tpm := startTPM(t)
	folder := t.TempDir()
	keys := []*key{}
	for range 4 {
		keys = append(keys, tpmKeyOf(t, Keys{tpm.Socket, folder}))
	}
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			_, err := keys[n%len(keys)].Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
			assert.NoError(t, err)
		})
	}
	all.Wait()
	require.Empty(t, handles(t, tpm.Socket, firstTransient))

	p := startProxy(t, tpm.Socket)
	k := tpmKeyOf(t, Keys{p.Socket, folder})
	for range 20 {
		all.Go(func() { assert.NoError(t, signs(k)) })
	}
	all.Wait()
	require.Equal(t, 1, p.most, "one owner of the device")
}

// A TPM that is busy is asked again, whatever it calls that.
func TestBusyTPMIsAskedAgain(t *testing.T) {
	tpm := startTPM(t)
	p := startProxy(t, tpm.Socket)
	k := tpmKeyOf(t, Keys{p.Socket, t.TempDir()})
	signatures := 1000
	if testing.Short() {
		signatures = 50
	}
	n := 0
	busy := []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting}
	p.set(func(p *proxy) {
		p.answer = func(tpm2.TPMCC, []byte) ([]byte, bool) {
			if n++; n%5 == 0 {
				return says(busy[n%len(busy)]), true
			}
			return nil, false
		}
	})
	p.commands()
	for range signatures {
		_, err := k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
		require.NoError(t, err)
	}
	require.Greater(t, len(p.commands()), signatures*6)
	require.Empty(t, handles(t, tpm.Socket, firstTransient))
}

// Whatever the TPM, or what stands in its place, does: the error is clear, comes in time, and does not call the key
// dead.
func TestTPMFails(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(*proxy)
		want string
	}{
		"never answers": {func(p *proxy) { p.silence = make(chan struct{}) }, "waiting for the TPM to answer"},
		"busy for good": {func(p *proxy) { p.answer = refusing(tpm2.TPMCCLoad, tpm2.TPMRCRetry, 0) }, "waiting for the TPM to answer"},
		"hangs up":      {func(p *proxy) { p.hangUp = true }, "EOF"},
		"answers too little": {func(p *proxy) {
			p.edit = func(_ tpm2.TPMCC, r []byte) []byte { return []byte{0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0} }
		}, "9 bytes"},
		"promises too much": {func(p *proxy) {
			p.edit = func(_ tpm2.TPMCC, r []byte) []byte { return []byte{0x80, 1, 0, 1, 0, 0, 0, 0, 0, 0} }
		}, "65536 bytes"},
		"speaks HTTP": {func(p *proxy) {
			p.edit = func(tpm2.TPMCC, []byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }
		}, "is it a TPM 2.0?"},
		"answers nonsense": {func(p *proxy) {
			p.edit = func(_ tpm2.TPMCC, r []byte) []byte {
				r = bytes.Clone(r)
				for i := headerSize; i < len(r); i++ {
					r[i] ^= 0x55
				}
				return r
			}
		}, ""},
		"signs with another key": {func(p *proxy) {
			p.edit = func(c tpm2.TPMCC, r []byte) []byte {
				if c == tpm2.TPMCCSign {
					r[len(r)/2] ^= 1
				}
				return r
			}
		}, "verification error"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, startTPM(t).Socket)
			k := tpmKeyOf(t, Keys{p.Socket, t.TempDir()})
			p.set(test.set)
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			_, err := k.sign(ctx, digestOf(crypto.SHA256), padding{hash: crypto.SHA256})
			require.ErrorIs(t, err, mtls.ErrKeyNotNow)
			require.NotErrorIs(t, err, errDead)
			require.ErrorContains(t, err, test.want)
			require.Less(t, time.Since(begin), 5*time.Second)
		})
	}
}

// A response may come in pieces.
func TestFragments(t *testing.T) {
	p := startProxy(t, startTPM(t).Socket)
	p.set(func(p *proxy) { p.chunk, p.pieces = 3, time.Microsecond })
	k := tpmKeyOf(t, Keys{p.Socket, t.TempDir()})
	_, err := k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
	require.NoError(t, err)
}

// A TPM that is reset between loading a key and using it has it loaded once more.
func TestTPMIsResetInBetween(t *testing.T) {
	tpm := startTPM(t)
	p := startProxy(t, tpm.Socket)
	k := tpmKeyOf(t, Keys{p.Socket, t.TempDir()})
	p.set(func(p *proxy) { p.answer = refusing(tpm2.TPMCCSign, tpm2.TPMRCReferenceH0, 1) })
	_, err := k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
	require.NoError(t, err)
	p.set(func(p *proxy) { p.answer = refusing(tpm2.TPMCCSign, tpm2.TPMRCReferenceH0, 0) })
	_, err = k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
	require.ErrorIs(t, err, mtls.ErrKeyNotNow)
}

// A TPM that died is gone for now; when it is back the key signs.
func TestTPMIsKilledAndComesBack(t *testing.T) {
	tpm := startTPM(t)
	k := tpmKeyOf(t, Keys{tpm.Socket, t.TempDir()})
	sign := func() error {
		_, err := k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
		return err
	}
	tpm.Stop()
	require.ErrorIs(t, sign(), mtls.ErrKeyNotNow)
	require.ErrorContains(t, sign(), "there is no such TPM")
	require.NoError(t, tpm.Start())
	require.NoError(t, sign())
}

// Who waits for the TPM waits no longer than it wants to, and what it has begun does not harm the next.
func TestWaitingForTheTPM(t *testing.T) {
	tpm := startTPM(t)
	p := startProxy(t, tpm.Socket)
	k := tpmKeyOf(t, Keys{p.Socket, t.TempDir()})
	silence := make(chan struct{})
	p.set(func(p *proxy) { p.silence = silence })
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := k.sign(ctx, digestOf(crypto.SHA256), padding{hash: crypto.SHA256})
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.ErrorIs(t, err, mtls.ErrKeyNotNow)
		})
	}
	all.Wait()
	p.set(func(p *proxy) { p.silence = nil })
	close(silence)
	_, err := k.Sign(rand.Reader, digestOf(crypto.SHA256), crypto.SHA256)
	require.NoError(t, err)
	require.Empty(t, handles(t, tpm.Socket, firstTransient))
}

// Getting a key and choosing one leave no file open.
func TestKeysLeaveNoHandle(t *testing.T) {
	tpm := startTPM(t)
	keys := Keys{tpm.Socket, t.TempDir()}
	tpmKeyOf(t, keys)
	open := openFiles(t)
	for range 3 {
		tpmKeyOf(t, keys)
		_, _, err := keys.Choose(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, open, openFiles(t))
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
