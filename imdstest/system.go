package imdstest

import (
	"slices"
	"sync"
)

// system is the system-assigned identity of the machine: the client ids that it has had, the present one last.
type system struct {
	mu        sync.Mutex
	clientIDs []string
}

func (s *system) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clientIDs[len(s.clientIDs)-1]
}

func (s *system) recreate(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clientIDs = append(slices.DeleteFunc(s.clientIDs, func(id string) bool { return id == clientID }), clientID)
}

// isDeleted reports whether the client id is one that the identity had and has no more.
func (s *system) isDeleted(clientID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.clientIDs[:len(s.clientIDs)-1], clientID)
}

// Recreate deletes the system-assigned identity and makes it anew with another client id: IMDS names and certifies that
// one from now on, and Entra knows the old one no more (AADSTS700016).
func (s *Server) Recreate(clientID string) { s.system.recreate(clientID) }
