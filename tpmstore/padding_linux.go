package tpmstore

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// padding is how a signature is padded: RSASSA-PSS with a salt as long as the hash, or PKCS #1 v1.5.
type padding struct {
	hash crypto.Hash
	pss  bool
}

var hashAlgorithms = map[crypto.Hash]tpm2.TPMAlgID{
	crypto.SHA256: tpm2.TPMAlgSHA256,
	crypto.SHA384: tpm2.TPMAlgSHA384,
	crypto.SHA512: tpm2.TPMAlgSHA512,
}

func paddingOf(digest []byte, opts crypto.SignerOpts) (padding, error) {
	if opts == nil {
		return padding{}, errors.New("tpmstore: signing needs to know the hash function")
	}
	p := padding{hash: opts.HashFunc()}
	if _, known := hashAlgorithms[p.hash]; !known {
		return p, fmt.Errorf("tpmstore: keys sign SHA-256, SHA-384 and SHA-512 only, not %s", p.hash)
	}
	if len(digest) != p.hash.Size() {
		return p, fmt.Errorf("tpmstore: a %s digest has %d bytes, got %d", p.hash, p.hash.Size(), len(digest))
	}
	options, pss := opts.(*rsa.PSSOptions)
	p.pss = pss
	if !pss {
		return p, nil
	}
	switch options.SaltLength {
	case rsa.PSSSaltLengthAuto, rsa.PSSSaltLengthEqualsHash, p.hash.Size():
		return p, nil
	}
	return p, fmt.Errorf("tpmstore: a TPM signs with a salt as long as the hash, %d bytes, not with %d",
		p.hash.Size(), options.SaltLength)
}

// scheme returns what the TPM calls it.
func (p padding) scheme() tpm2.TPMTSigScheme {
	scheme := tpm2.TPMAlgRSASSA
	if p.pss {
		scheme = tpm2.TPMAlgRSAPSS
	}
	return tpm2.TPMTSigScheme{
		Scheme:  scheme,
		Details: tpm2.NewTPMUSigScheme(scheme, &tpm2.TPMSSchemeHash{HashAlg: hashAlgorithms[p.hash]}),
	}
}

// verify returns why a signature is not the key's. A TPM that forgot the key may sign with another one that got its
// handle.
func (p padding) verify(key *rsa.PublicKey, digest, signature []byte) error {
	if !p.pss {
		return rsa.VerifyPKCS1v15(key, p.hash, digest, signature)
	}
	return rsa.VerifyPSS(key, p.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

// signWith has the TPM sign with a key that is loaded.
func signWith(s *session, loaded tpm2.AuthHandle, digest []byte, p padding) ([]byte, error) {
	signed, err := tpm2.Sign{
		KeyHandle:  loaded,
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   p.scheme(),
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck}, // the digest was made elsewhere
	}.Execute(s)
	if err != nil {
		return nil, err
	}
	read := signed.Signature.Signature.RSASSA
	if p.pss {
		read = signed.Signature.Signature.RSAPSS
	}
	signature, err := read()
	if err != nil {
		return nil, err
	}
	return signature.Sig.Buffer, nil
}
