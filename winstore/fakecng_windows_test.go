package winstore

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/windows"
)

// fakeStorage stands in for CNG's key storage where Wine has none: a machine with KeyGuard and a TPM, whose keys last.
type fakeStorage struct {
	noIsolation bool   // flags of KeyGuard are accepted and ignored
	noTPM       bool   // the provider of the TPM keeps nothing in hardware
	noPSS       string // provider that cannot sign RSASSA-PSS
	createError map[string]error
	openError   map[string]error
	// Of properties.
	hardwareError, isolationError error

	mu     sync.Mutex
	keys   map[string]*fakeKey
	events []string
	open_  int // handles
}

type fakeKey struct {
	storage  *fakeStorage
	private  *rsa.PrivateKey
	name     string
	isolates bool
	dead     error // it opens, and does not sign
	noPSS    bool
	signsAs  *fakeKey // what is left is damaged: it signs with another key
}

var errFakeExists = failed("NCryptCreatePersistedKey", syscall.Errno(windows.NTE_EXISTS))

func (s *fakeStorage) open(provider, name string) (cngKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.openError[name]; err != nil {
		return nil, err
	}
	k := s.keys[provider+name]
	if k == nil {
		return nil, failed("NCryptOpenKey", syscall.Errno(windows.NTE_BAD_KEYSET))
	}
	s.open_++
	return k, nil
}

func (s *fakeStorage) create(provider, name string, flags uint32) (cngKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.createError[cmp.Or(name, s.nameOf(provider, flags))]; err != nil {
		return nil, err
	}
	event := "created " + name
	if name != "" && (s.keys[provider+name] != nil || s.openError[name] != nil) {
		if flags&ncryptOverwriteKey == 0 {
			return nil, errFakeExists
		}
		event = "replaced " + name
	}
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	if s.keys == nil {
		s.keys = map[string]*fakeKey{}
	}
	k := &fakeKey{storage: s, private: private, name: name, noPSS: provider == s.noPSS}
	k.isolates = flags&(ncryptVirtualIso|ncryptPerBootKey) == ncryptVirtualIso|ncryptPerBootKey && !s.noIsolation
	if name != "" {
		s.keys[provider+name] = k
		s.events = append(s.events, event)
	}
	s.open_++
	return k, nil
}

// nameOf returns the name of the tier that a key without a name is made for.
func (s *fakeStorage) nameOf(provider string, flags uint32) string {
	for _, t := range []tier{keyGuard, tpm, software} {
		if t.provider == provider && t.flags == flags {
			return t.name
		}
	}
	return ""
}

func (s *fakeStorage) inHardware(provider string) (bool, error) {
	return provider == platformProvider && !s.noTPM, s.hardwareError
}

// reboot does to the keys what a reboot does.
func (s *fakeStorage) reboot() {
	for _, k := range s.keys {
		if k.isolates {
			k.dead = failed("NCryptSignHash", syscall.Errno(nteVBSCannotDecryptKey))
		}
	}
}

// handles returns how many are open.
func (s *fakeStorage) handles() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open_
}

func (k *fakeKey) isolated() (bool, error) {
	if err := k.storage.isolationError; err != nil {
		return false, err
	}
	return k.isolates, nil
}

func (k *fakeKey) publicKey() (*rsa.PublicKey, error) { return &k.private.PublicKey, nil }

func (k *fakeKey) sign(digest []byte, p padding) ([]byte, error) {
	switch {
	case k.dead != nil:
		return nil, k.dead
	case k.signsAs != nil:
		return k.signsAs.sign(digest, p)
	case p.pss && k.noPSS:
		return nil, failed("NCryptSignHash", syscall.Errno(windows.NTE_NOT_SUPPORTED))
	case p.pss:
		return rsa.SignPSS(rand.Reader, k.private, p.hash, digest, &rsa.PSSOptions{SaltLength: p.salt})
	}
	return rsa.SignPKCS1v15(nil, k.private, crypto.Hash(p.hash), digest)
}

func (k *fakeKey) remove() error {
	for id, other := range k.storage.keys {
		if other == k {
			delete(k.storage.keys, id)
			k.storage.events = append(k.storage.events, "removed "+k.name)
			k.close()
			return nil
		}
	}
	k.close()
	return errors.New("it is not there")
}

func (k *fakeKey) close() {
	k.storage.mu.Lock()
	defer k.storage.mu.Unlock()
	k.storage.open_--
}
