package tpmstore

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// errUnusable marks what a TPM can never do for a binding.
var errUnusable = errors.New("this TPM's keys cannot be used")

// keyTemplate is a key that signs what it is given. The fields that bind it to its TPM are those of the TCG; without
// NoDA, failed attempts at other keys would lock this one out too.
func keyTemplate() tpm2.TPM2BPublic {
	return tpm2.New2B(tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgRSA,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			UserWithAuth:        true,
			NoDA:                true,
			SignEncrypt:         true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
			Scheme:    tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull},
			KeyBits:   keyBits,
		}),
	})
}

// create has the TPM make a key, and proves by a signature that IMDS will accept it.
func create(s *session) (wrapped, error) {
	p, rootName, err := birthplace(s)
	if err != nil {
		return wrapped{}, err
	}
	w, err := createBelow(s, p)
	p.flush(s)
	if err != nil {
		return wrapped{}, fmt.Errorf("making a key: %w", err)
	}
	w.storageRoot = rootName
	return w, w.proveSalt(s)
}

// birthplace returns the parent of a new key: the storage root key that the TPM keeps, else that of the TCG's template.
// It returns the Name of the latter too, if the TPM makes it.
func birthplace(s *session) (p *parent, rootName []byte, err error) {
	kept, err := persistent(s)
	if err != nil {
		return nil, nil, err
	}
	root, err := storageRoot(s)
	switch {
	case kept == nil && err != nil:
		return nil, nil, err
	case kept == nil:
		return root, root.name, nil
	case err != nil:
		return kept, nil, nil // the owner has a password
	}
	root.flush(s)
	return kept, root.name, nil
}

func createBelow(s *session, p *parent) (wrapped, error) {
	made, err := tpm2.Create{ParentHandle: p.auth(), InPublic: keyTemplate()}.Execute(s)
	if err != nil {
		return wrapped{}, err
	}
	w := wrapped{
		parent: p.handle, parentName: p.name, public: made.OutPublic.Bytes(), private: made.OutPrivate.Buffer,
	}
	if p.transient {
		w.parent = tpm2.TPMRHOwner
	}
	w.key, err = rsaKey(w.public)
	return w, err
}

// proveSalt returns why the key cannot sign a certificate request. Older specifications let a TPM fill the space that a
// signature has with salt, and IMDS demands 32 bytes.
func (w wrapped) proveSalt(s *session) error {
	loaded, err := w.load(s)
	if err != nil {
		return err
	}
	defer flush(s, loaded.Handle)
	p := padding{crypto.SHA256, true}
	signature, err := signWith(s, loaded, probe[:], p)
	if err != nil {
		return fmt.Errorf("the new key cannot sign RSASSA-PSS, which IMDS demands of a certificate request: %w", err)
	}
	if p.verify(w.key, probe[:], signature) == nil {
		return nil
	}
	if rsa.VerifyPSS(w.key, p.hash, probe[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil {
		return fmt.Errorf(
			"%w: its RSASSA-PSS salt is not as long as the hash, which IMDS demands of a certificate request",
			errUnusable,
		)
	}
	return fmt.Errorf("%w: the signature of a new key does not verify", errUnusable)
}
