package tpmstore

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
)

// key is an [mtls.Key] that the TPM loads for each signature, and that nothing is left of in the TPM after it.
type key struct {
	device  *device
	wrapped wrapped
}

// Public returns the *rsa.PublicKey.
func (k *key) Public() crypto.PublicKey { return k.wrapped.key }

// Strength returns [mtls.StrengthTPM].
func (*key) Strength() mtls.BindingStrength { return mtls.StrengthTPM }

// SupportedSignatureAlgorithms returns what every TPM 2.0 can sign in TLS; not every one knows SHA-384 and SHA-512.
func (*key) SupportedSignatureAlgorithms() []tls.SignatureScheme {
	return []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}
}

// Sign signs a SHA-256, SHA-384 or SHA-512 digest, with RSASSA-PSS if opts is an *rsa.PSSOptions, else with PKCS #1
// v1.5. The salt is as long as the hash. Randomness is the TPM's own. An error wraps [mtls.ErrKeyNotNow] unless the key
// is dead.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	p, err := paddingOf(digest, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limits.Key)
	defer cancel()
	return k.sign(ctx, digest, p)
}

// sign tries twice: a TPM that was reset in between forgets the key that was just loaded.
func (k *key) sign(ctx context.Context, digest []byte, p padding) ([]byte, error) {
	once := func() ([]byte, error) {
		return use(ctx, k.device, func(s *session) ([]byte, error) { return k.wrapped.sign(s, digest, p) })
	}
	signature, err := once()
	if errors.Is(err, tpm2.TPMRCReferenceH0) {
		signature, err = once()
	}
	if err != nil {
		return nil, fmt.Errorf("tpmstore: signing with the TPM at %s: %w", k.device.path, verdict(err))
	}
	return signature, nil
}

// prove returns why the key cannot be used: errDead, or any other error for now. It loads the key, which takes the TPM
// far less time than a signature.
func (k *key) prove(ctx context.Context) error {
	_, err := use(ctx, k.device, func(s *session) (any, error) {
		loaded, err := k.wrapped.load(s)
		if err == nil {
			flush(s, loaded.Handle)
		}
		return nil, err
	})
	return verdict(err)
}

// sign has the TPM load the key and sign with it.
func (w wrapped) sign(s *session, digest []byte, p padding) ([]byte, error) {
	loaded, err := w.load(s)
	if err != nil {
		return nil, err
	}
	defer flush(s, loaded.Handle)
	signature, err := signWith(s, loaded, digest, p)
	if err == nil {
		err = p.verify(w.key, digest, signature)
	}
	return signature, err
}

// load has the TPM load the key. The caller flushes it.
func (w wrapped) load(s *session) (tpm2.AuthHandle, error) {
	p, err := parentOf(s, w)
	if err != nil {
		return tpm2.AuthHandle{}, err
	}
	defer p.flush(s)
	loaded, err := tpm2.Load{
		ParentHandle: p.auth(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: w.private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](w.public),
	}.Execute(s)
	if err != nil {
		return tpm2.AuthHandle{}, verdictOfLoad(err, w)
	}
	return emptyAuth(loaded.ObjectHandle, loaded.Name.Buffer), nil
}

// probe is what a new key signs.
var probe = sha256.Sum256([]byte("azmtls liveness probe"))

var _ mtls.Key = (*key)(nil)
