package mtls_test

import (
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
)

// memoryStore is a Store in memory that records what was done to it and can be made to fail.
type memoryStore struct {
	mu      sync.Mutex
	entries map[string][]*mtls.Binding
	calls   []string
	fail    func(op string) error
}

// failing has one operation of a store fail.
func failing(op string, err error) func(string) error {
	return func(asked string) error {
		if asked == op {
			return err
		}
		return nil
	}
}

func (s *memoryStore) do(op, alias string, f func()) error {
	s.mu.Lock()
	s.calls = append(s.calls, op+" "+alias)
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(op); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[string][]*mtls.Binding{}
	}
	f()
	return nil
}

func (s *memoryStore) Load(_ context.Context, alias string) (b *mtls.Binding, err error) {
	err = s.do("load", alias, func() {
		if stored := s.entries[alias]; len(stored) > 0 {
			b = stored[len(stored)-1]
		}
	})
	if err == nil && b == nil {
		err = mtls.ErrNotFound
	}
	return b, err
}

func (s *memoryStore) Save(_ context.Context, alias string, b *mtls.Binding) error {
	return s.do("save", alias, func() { s.entries[alias] = append(s.entries[alias], b) })
}

func (s *memoryStore) DeleteAll(_ context.Context, alias string) error {
	return s.do("delete", alias, func() { delete(s.entries, alias) })
}

func (s *memoryStore) has(alias string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, b := range s.entries[alias] {
		out = append(out, b.Thumbprint())
	}
	return out
}

// minter counts what it mints.
type minter struct {
	t     testing.TB
	count atomic.Int32
	edit  func(*x509.Certificate)
	fail  error
	hold  chan struct{}
	again *mtls.Binding // what is minted, nil: a new one each time

	mu       sync.Mutex
	requests []mtls.MintRequest
}

func (m *minter) mint(ctx context.Context, request mtls.MintRequest) (*mtls.Binding, error) {
	m.count.Add(1)
	m.mu.Lock()
	m.requests = append(m.requests, request)
	m.mu.Unlock()
	if m.hold != nil {
		select {
		case <-m.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if m.fail != nil {
		return nil, m.fail
	}
	if m.again != nil {
		b := *m.again
		return &b, nil
	}
	return binding(m.t, m.edit), nil
}

func (m *minter) source(alias string, store mtls.Store) mtls.Source {
	return mtls.Source{Alias: alias, Store: store, Mint: m.mint}
}

// foreground is the source of callers who want nothing done in the background: no renewal.
func (m *minter) foreground(alias string) mtls.Source {
	src := m.source(alias, nil)
	src.Foreground = true
	return src
}

// at is a Cache with a clock of the test's.
func at(f *clock.Fake) *mtls.Cache { return &mtls.Cache{Clock: f.Clock()} }

// refusal is what a peer says of a binding; an empty host is the binding's token endpoint.
func refusal(b *mtls.Binding, host string) *mtls.Refusal {
	if host == "" {
		host = "eus.mtlsauth.example"
	}
	return &mtls.Refusal{Binding: b, Host: host, Err: errors.New("alert")}
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*mtls.Refusal](err)
	return ok
}
