package tpmstore

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// persistentSRK is where a TPM keeps its storage root key, if it keeps one (TCG TPM v2.0 Provisioning Guidance, section
// 7.5.1).
const persistentSRK = tpm2.TPMHandle(0x81000001)

// storageRootTemplate is H-2 of the TCG's "EK Credential Profile" and what the "TSS2 PRIVATE KEY" form means by a
// hierarchy as parent: on P-256, with an empty unique field. go-tpm's ECCSRKTemplate fills that with zeros, which makes
// another key.
func storageRootTemplate() tpm2.TPM2BPublic {
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return tpm2.New2B(template)
}

// parent is a key in the TPM below which others are made and loaded.
type parent struct {
	handle    tpm2.TPMHandle
	name      []byte
	transient bool
}

func (p *parent) auth() tpm2.AuthHandle { return emptyAuth(p.handle, p.name) }

func emptyAuth(handle tpm2.TPMHandle, name []byte) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: handle, Name: tpm2.TPM2BName{Buffer: name}, Auth: tpm2.PasswordAuth(nil)}
}

// flush removes the key from the TPM's memory, if it does not live there for good. Where it fails the connection is
// lost, and the resource manager does it.
func (p *parent) flush(s *session) {
	if p.transient {
		flush(s, p.handle)
	}
}

func flush(s *session, handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(s)
}

// persistent returns the storage root key that the TPM keeps, nil if it keeps none that is a parent.
func persistent(s *session) (*parent, error) {
	kept, err := tpm2.ReadPublic{ObjectHandle: persistentSRK}.Execute(s)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the storage root key at 0x%x: %w", uint32(persistentSRK), err)
	}
	public, err := kept.OutPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("reading the storage root key at 0x%x: %w", uint32(persistentSRK), err)
	}
	if !public.ObjectAttributes.Restricted || !public.ObjectAttributes.Decrypt {
		return nil, nil
	}
	return &parent{handle: persistentSRK, name: kept.Name.Buffer}, nil
}

// storageRoot makes the storage root key of the TCG's template, always the same one until the TPM is cleared.
func storageRoot(s *session) (*parent, error) {
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: emptyAuth(tpm2.TPMRHOwner, tpm2.HandleName(tpm2.TPMRHOwner).Buffer),
		InPublic:      storageRootTemplate(),
	}.Execute(s)
	if err != nil {
		return nil, fmt.Errorf("making the storage root key: %w", err)
	}
	return &parent{handle: made.ObjectHandle, name: made.Name.Buffer, transient: true}, nil
}

// parentOf returns the parent that a key was made below. The error is errDead if the TPM has it for good no more.
func parentOf(s *session, w wrapped) (*parent, error) {
	kept, err := persistent(s)
	if err != nil {
		return nil, err
	}
	if kept != nil && (bytes.Equal(kept.name, w.parentName) || w.parentName == nil && w.parent == persistentSRK) {
		return kept, nil
	}
	root, err := storageRoot(s)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(root.name, w.parentName) || w.parentName == nil && w.parent == tpm2.TPMRHOwner {
		return root, nil
	}
	root.flush(s)
	if w.storageRoot != nil && !bytes.Equal(root.name, w.storageRoot) {
		return nil, fmt.Errorf("%w: the TPM was cleared, or is another one", errDead)
	}
	return nil, fmt.Errorf("the key's parent at 0x%x is gone or another one, though the TPM was not cleared: "+
		"put it back, or delete the key's file to have a new key made", uint32(w.parent))
}
