package imdstest

import (
	"context"
	"sync"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/mtls"
)

// CredentialOptions returns all that a credential needs to live on the simulated machine: it finds its IMDS, trusts its
// servers, makes keys in memory, and shares bindings, in cache and store, with no other credential. Those of two calls
// share nothing either: copy the Store for a second process of the machine, Cache and Store for a second credential of
// the same process. They follow [Options.Clock] where there is one.
//
// They fit [azmtls.NewManagedIdentityCredential] too, converted to [azmtls.ManagedIdentityCredentialOptions]: IMDS v1
// is found the same way.
func (s *Server) CredentialOptions() *azmtls.ImdsV2MtlsCredentialOptions {
	return &azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: s.ClientOptions(),
		MTLSTransport: s.MTLSTransport(),
		KeyProvider:   mtls.SoftwareKeys{},
		Store:         &memory{},
		Cache:         &mtls.Cache{Clock: s.options.Clock.internal()},
	}
}

// memory is a store that ends with the test.
type memory struct {
	mu       sync.Mutex
	bindings map[string]*mtls.Binding
}

func (m *memory) Load(_ context.Context, alias string) (*mtls.Binding, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, stored := m.bindings[alias]; stored {
		return b, nil
	}
	return nil, mtls.ErrNotFound
}

func (m *memory) Save(_ context.Context, alias string, b *mtls.Binding) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bindings == nil {
		m.bindings = map[string]*mtls.Binding{}
	}
	m.bindings[alias] = b
	return nil
}

func (m *memory) DeleteAll(_ context.Context, alias string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.bindings, alias)
	return nil
}
