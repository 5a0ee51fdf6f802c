package imdstest

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"sync"
)

// certified keeps the latest certificate of each identity and key.
type certified struct {
	mu     sync.Mutex
	leaves map[string]*x509.Certificate
}

// certify returns a certificate for a key: the one that the key has already, or, if it has none or fresh is set, a
// new one.
func (s *Server) certify(public crypto.PublicKey, clientID string, fresh bool) (*x509.Certificate, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("imdstest: encoding a key: %w", err)
	}
	name := clientID + " " + string(der)
	s.certified.mu.Lock()
	defer s.certified.mu.Unlock()
	if leaf := s.certified.leaves[name]; leaf != nil && !fresh {
		return leaf, nil
	}
	leaf, err := s.authority.issue(s.options, public, clientID)
	if err != nil {
		return nil, err
	}
	if s.certified.leaves == nil {
		s.certified.leaves = map[string]*x509.Certificate{}
	}
	s.certified.leaves[name] = leaf
	return leaf, nil
}
