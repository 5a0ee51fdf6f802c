package winstore

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/azmtls/azmtls/mtls"
	"golang.org/x/sys/windows"
)

// key is an [mtls.Key] that Windows holds. Its methods may be called concurrently; after Close it signs no more.
type key struct {
	public    *rsa.PublicKey
	strength  mtls.BindingStrength
	container container
	pss       bool // it signs RSASSA-PSS, not only PKCS #1 v1.5

	mu      sync.Mutex // one use of native at a time: not every provider allows more
	native  nativeKey
	cleanup runtime.Cleanup
}

// nativeKey is an open handle of a key: of CNG or of the older CryptoAPI.
type nativeKey interface {
	publicKey() (*rsa.PublicKey, error)
	sign(digest []byte, p padding) ([]byte, error)
	close()
}

// padding is how a signature is padded: RSASSA-PSS with a salt of this many bytes, or PKCS #1 v1.5.
type padding struct {
	hash crypto.Hash
	pss  bool
	salt int
}

// container names where a key lives. It is empty for a key that lives in this process only.
type container struct {
	provider, name string
	providerType   uint32 // of CryptoAPI; 0 is CNG
	keySpec        uint32 // of CryptoAPI
	flags          uint32
}

// newKey takes the handle over. The key it returns has just signed; a handle that cannot is closed.
func newKey(native nativeKey, strength mtls.BindingStrength, c container) (*key, error) {
	k := &key{native: native, strength: strength, container: c}
	if err := k.prove(); err != nil {
		native.close()
		return nil, err
	}
	k.cleanup = runtime.AddCleanup(k, func(n nativeKey) { n.close() }, native)
	return k, nil
}

// prove has the key sign and verifies the signature. A key can open and not sign: one that is new at every boot leaves
// its name behind. A provider that lacks RSASSA-PSS, or signs it with a salt of its own choice, is used for PKCS #1
// v1.5 alone.
func (k *key) prove() error {
	public, err := k.native.publicKey()
	if err != nil {
		return err
	}
	k.public = public
	digest := sha256.Sum256([]byte("azmtls liveness probe"))
	signature, pssErr := k.native.sign(digest[:], padding{hash: crypto.SHA256, pss: true, salt: sha256.Size})
	if pssErr == nil {
		pssErr = rsa.VerifyPSS(
			public,
			crypto.SHA256,
			digest[:],
			signature,
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
		)
	}
	if k.pss = pssErr == nil; k.pss {
		return nil
	}
	signature, err = k.native.sign(digest[:], padding{hash: crypto.SHA256})
	if err == nil {
		err = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature)
	}
	if err != nil {
		return fmt.Errorf("winstore: the key cannot sign: %w", err)
	}
	return nil
}

// Public returns the *rsa.PublicKey.
func (k *key) Public() crypto.PublicKey { return k.public }

// Strength says what protects the key.
func (k *key) Strength() mtls.BindingStrength { return k.strength }

// SupportedSignatureAlgorithms returns what the key can sign in TLS.
func (k *key) SupportedSignatureAlgorithms() []tls.SignatureScheme {
	pkcs1 := []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}
	if !k.pss {
		return pkcs1
	}
	return append([]tls.SignatureScheme{tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512}, pkcs1...)
}

// Sign signs a SHA-256, SHA-384 or SHA-512 digest, with RSASSA-PSS if opts is an *rsa.PSSOptions, else with PKCS #1
// v1.5. The randomness is the provider's own. The error is [mtls.ErrKeyNotNow] unless Windows says that the key is dead
// or gone, or that this handle is: then it takes another binding, whose key is opened anew.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	p, err := k.padding(digest, opts)
	if err != nil {
		return nil, err
	}
	var signature []byte
	err = k.use(func(native nativeKey) (err error) {
		signature, err = native.sign(digest, p)
		return err
	})
	if is(err, windows.NTE_INVALID_HANDLE) || is(err, windows.ERROR_INVALID_HANDLE) {
		return nil, err
	}
	return signature, notNow(err)
}

func (k *key) padding(digest []byte, opts crypto.SignerOpts) (padding, error) {
	if opts == nil {
		return padding{}, errors.New("winstore: signing needs to know the hash function")
	}
	p := padding{hash: opts.HashFunc()}
	switch p.hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return p, fmt.Errorf("winstore: keys sign SHA-256, SHA-384 and SHA-512 only, not %s", p.hash)
	}
	if len(digest) != p.hash.Size() {
		return p, fmt.Errorf("winstore: a %s digest has %d bytes, got %d", p.hash, p.hash.Size(), len(digest))
	}
	options, ok := opts.(*rsa.PSSOptions)
	if !ok {
		return p, nil
	}
	if !k.pss {
		return p, errors.New("winstore: this key's provider cannot sign RSASSA-PSS")
	}
	p.pss, p.salt = true, options.SaltLength
	largest := (k.public.N.BitLen()-1+7)/8 - 2 - p.hash.Size() // RFC 8017, section 9.1.1
	switch {
	case p.salt == rsa.PSSSaltLengthEqualsHash:
		p.salt = p.hash.Size()
	case p.salt == rsa.PSSSaltLengthAuto:
		p.salt = largest
	case p.salt < 0 || p.salt > largest:
		return p, fmt.Errorf("winstore: a salt of %d bytes does not fit", p.salt)
	}
	return p, nil
}

// use runs f with the open handle, which stays open as long.
func (k *key) use(f func(nativeKey) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.native == nil {
		return errors.New("winstore: the key is closed")
	}
	return f(k.native)
}

// Close closes the handle. The key itself stays where it is.
func (k *key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.native != nil {
		k.cleanup.Stop()
		k.native.close()
		k.native = nil
	}
	return nil
}

var _ mtls.Key = (*key)(nil)
