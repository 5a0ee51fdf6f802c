package winstore

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

func smallKey(t *testing.T) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	return k
}

// digestOf returns a digest of the size that the hash function has.
func digestOf(hash crypto.Hash) []byte {
	h := map[crypto.Hash]func() []byte{
		crypto.SHA256: func() []byte { d := sha256.Sum256([]byte("x")); return d[:] },
		crypto.SHA384: func() []byte { d := sha512.Sum384([]byte("x")); return d[:] },
		crypto.SHA512: func() []byte { d := sha512.Sum512([]byte("x")); return d[:] },
	}
	return h[hash]()
}

// softwareKey is a real key of CNG.
func softwareKey(t *testing.T) *key {
	k, err := software.key(context.Background(), ncrypt{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k
}

// Signatures of CNG and of the older CryptoAPI are those that the rest of the world verifies, from many goroutines at
// once.
func TestSign(t *testing.T) {
	unused, err := ncrypt{}.create(softwareProvider, "azmtls-test", 0)
	require.NoError(t, err)
	defer unused.close()
	public, err := unused.publicKey()
	require.NoError(t, err)
	for name, test := range map[string]struct {
		key *key
		pss bool
	}{
		"CNG, PSS": {softwareKey(t), true},
		// A key of Wine's signs no PKCS #1 v1.5 once it has signed PSS, as a key that was proved has.
		"CNG, PKCS #1 v1.5":       {&key{native: unused, public: public}, false},
		"CryptoAPI, PKCS #1 v1.5": {persistedKey(t), false},
	} {
		t.Run(name, func(t *testing.T) {
			var all sync.WaitGroup
			for i := range 12 {
				hash := []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}[i%3]
				all.Go(func() {
					if err := signAndVerify(test.key, hash, test.pss); err != nil {
						t.Errorf("%s: %v", hash, err)
					}
				})
			}
			all.Wait()
		})
	}
}

func signAndVerify(k *key, hash crypto.Hash, pss bool) error {
	digest := digestOf(hash)
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	if pss {
		signature, err := k.Sign(rand.Reader, digest, options)
		if err != nil {
			return err
		}
		return rsa.VerifyPSS(k.public, hash, digest, signature, options)
	}
	signature, err := k.Sign(nil, digest, hash)
	if err != nil {
		return err
	}
	return rsa.VerifyPKCS1v15(k.public, hash, digest, signature)
}

// Windows returns a handle of CNG for a certificate whose key is there. Wine never does, so the handle comes from
// elsewhere.
func TestAcquiredHandleOfCNG(t *testing.T) {
	made, err := ncrypt{}.create(softwareProvider, "azmtls-test", 0)
	require.NoError(t, err)
	c := container{provider: softwareProvider, name: "azmtls-test"}
	k, err := acquiredKey(made.(*ncryptKey).handle, windows.CERT_NCRYPT_KEY_SPEC, nil, c)
	require.NoError(t, err)
	require.Equal(t, c, k.container)
	require.Equal(t, mtls.StrengthSoftware, k.Strength())
	require.NoError(t, signAndVerify(k, crypto.SHA256, true))
	require.NoError(t, k.Close())
}

// A handle that belongs to a certificate is not ours to close, and lasts as long as the certificate that we hold for
// it.
func TestBorrowedHandle(t *testing.T) {
	lender := persistedKey(t)
	f := newFixture(t)
	der := f.certificate(lender.Public(), clientID, 9*day).Raw
	owner, err := windows.CertCreateCertificateContext(encoding, &der[0], uint32(len(der)))
	require.NoError(t, err)
	k, err := acquiredKey(lender.native.(*capiKey).provider, lender.container.keySpec, owner, lender.container)
	require.NoError(t, err)
	require.NoError(t, signAndVerify(k, crypto.SHA256, false))
	require.NoError(t, k.Close())
	require.NoError(t, signAndVerify(lender, crypto.SHA256, false), "its handle is still open")
}

// A key of CryptoAPI says that it cannot sign RSASSA-PSS, so that TLS does not ask it to.
func TestSignatureAlgorithms(t *testing.T) {
	pkcs1 := []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}
	legacy := persistedKey(t)
	require.Equal(t, pkcs1, legacy.SupportedSignatureAlgorithms())
	_, err := legacy.Sign(rand.Reader, digestOf(crypto.SHA256), &rsa.PSSOptions{Hash: crypto.SHA256})
	require.ErrorContains(t, err, "RSASSA-PSS")
	require.Subset(
		t,
		softwareKey(t).SupportedSignatureAlgorithms(),
		append(pkcs1, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512),
	)
	require.Equal(t, mtls.StrengthSoftware, legacy.Strength())
}

// Bad input gets an error, not a signature.
func TestSignRefuses(t *testing.T) {
	k := softwareKey(t)
	digest := digestOf(crypto.SHA256)
	for name, test := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"no options":        {digest, nil},
		"no hash":           {digest, crypto.Hash(0)},
		"SHA-1":             {digest[:20], crypto.SHA1},
		"digest too short":  {digest[:31], crypto.SHA256},
		"no digest":         {nil, crypto.SHA256},
		"digest of another": {digest, crypto.SHA512},
		"salt too long":     {digest, &rsa.PSSOptions{SaltLength: 223, Hash: crypto.SHA256}},
		"negative salt":     {digest, &rsa.PSSOptions{SaltLength: -2, Hash: crypto.SHA256}},
	} {
		_, err := k.Sign(rand.Reader, test.digest, test.opts)
		require.Error(t, err, name)
	}
}

// The salt is what crypto/rsa makes it.
func TestSaltLength(t *testing.T) {
	k := softwareKey(t)
	for given, want := range map[int]int{rsa.PSSSaltLengthEqualsHash: 64, rsa.PSSSaltLengthAuto: 190, 20: 20, 190: 190} {
		p, err := k.padding(digestOf(crypto.SHA512), &rsa.PSSOptions{SaltLength: given, Hash: crypto.SHA512})
		require.NoError(t, err)
		require.Equal(t, padding{hash: crypto.SHA512, pss: true, salt: want}, p)
	}
}

// A closed key signs no more, its handle is freed once, and never while it signs.
func TestClose(t *testing.T) {
	storage := &fakeStorage{}
	native, err := storage.create(softwareProvider, "k", 0)
	require.NoError(t, err)
	k, err := newKey(native, mtls.StrengthSoftware, container{})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { _, _ = k.Sign(nil, digestOf(crypto.SHA256), crypto.SHA256) })
		all.Go(func() { _ = k.Close() })
	}
	all.Wait()
	require.Zero(t, storage.handles())
	_, err = k.Sign(nil, digestOf(crypto.SHA256), crypto.SHA256)
	require.ErrorContains(t, err, "closed")
}

// The handle of a key that is dead is not left open.
func TestDeadKeyIsClosed(t *testing.T) {
	storage := &fakeStorage{}
	native, err := storage.create(softwareProvider, "k", 0)
	require.NoError(t, err)
	native.(*fakeKey).dead = failed("NCryptSignHash", syscall.Errno(windows.NTE_BAD_KEYSET))
	_, err = newKey(native, mtls.StrengthSoftware, container{})
	require.ErrorContains(t, err, "NTE_BAD_KEYSET")
	require.Zero(t, storage.handles())
}

// Where Windows does not say that the key is dead or gone, it may sign in a moment. A handle that broke is not waited
// for: the next binding opens the key anew.
func TestSignSaysNotNow(t *testing.T) {
	storage := &fakeStorage{}
	native, err := storage.create(softwareProvider, "k", 0)
	require.NoError(t, err)
	k, err := newKey(native, mtls.StrengthSoftware, container{})
	require.NoError(t, err)
	for _, code := range troubles {
		native.(*fakeKey).dead = failed("NCryptSignHash", code)
		_, err = k.Sign(nil, digestOf(crypto.SHA256), crypto.SHA256)
		require.ErrorIs(t, err, mtls.ErrKeyNotNow, "%s", native.(*fakeKey).dead)
		require.ErrorContains(t, err, native.(*fakeKey).dead.Error())
	}
	for _, code := range append(deaths, syscall.Errno(windows.NTE_INVALID_HANDLE), windows.ERROR_INVALID_HANDLE) {
		native.(*fakeKey).dead = failed("NCryptSignHash", code)
		_, err = k.Sign(nil, digestOf(crypto.SHA256), crypto.SHA256)
		require.Error(t, err)
		require.NotErrorIs(t, err, mtls.ErrKeyNotNow, "%s", native.(*fakeKey).dead)
	}
	native.(*fakeKey).dead = nil
	_, err = k.Sign(nil, digestOf(crypto.SHA256)[1:], crypto.SHA256)
	require.Error(t, err)
	require.NotErrorIs(t, err, mtls.ErrKeyNotNow, "the caller's mistake")
}

// Nobody closes the key of a binding that was replaced: the handle goes with it.
func TestCollectedKeyIsClosed(t *testing.T) {
	closed := make(chan struct{})
	storage := &fakeStorage{}
	native, err := storage.create(softwareProvider, "k", 0)
	require.NoError(t, err)
	k, err := newKey(&closingKey{native, closed}, mtls.StrengthSoftware, container{})
	require.NoError(t, err)
	runtime.GC()
	_, err = k.Sign(nil, digestOf(crypto.SHA256), crypto.SHA256)
	require.NoError(t, err, "as long as somebody holds it, it works")
	runtime.GC() // nobody does
	<-closed
}

type closingKey struct {
	nativeKey
	closed chan struct{}
}

func (k *closingKey) close() { close(k.closed) }
