package mtls_test

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// memoryStore is a Store in memory that records what was done to it and can be made to fail.
type memoryStore struct {
	mu      sync.Mutex
	entries map[string][]*mtls.Binding
	calls   []string
	fail    func(op string) error
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
}

func (m *minter) mint(ctx context.Context) (*mtls.Binding, error) {
	m.count.Add(1)
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
	return binding(m.t, m.edit), nil
}

func (m *minter) source(alias string, store mtls.Store) mtls.Source {
	return mtls.Source{Alias: alias, Store: store, Mint: m.mint}
}

func TestGetOrMintPrefersMemoryThenStoreThenMint(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	var first mtls.Cache
	minted, err := first.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	again, err := first.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, minted, again)
	require.Equal(t, []string{"load a", "save a"}, store.calls)

	var second mtls.Cache // another process with the same store
	loaded, err := second.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, minted.Thumbprint(), loaded.Thumbprint())
	require.EqualValues(t, 1, m.count.Load())
}

func TestGetOrMintIgnoresWhatAStoreShouldNotHaveKept(t *testing.T) {
	otherKey, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	for name, spoil := range map[string]func(*mtls.Binding){
		"no private key":     func(b *mtls.Binding) { b.Certificate.PrivateKey = nil },
		"key of another":     func(b *mtls.Binding) { b.Certificate.PrivateKey = otherKey },
		"no certificate":     func(b *mtls.Binding) { b.Certificate.Leaf = nil },
		"endpoint not https": func(b *mtls.Binding) { b.Endpoint = "http://host/tenant" },
		"less than a day":    func(b *mtls.Binding) { *b = *binding(t, lasting(23*time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			bad := binding(t, nil)
			spoil(bad)
			m, store := &minter{t: t}, &memoryStore{entries: map[string][]*mtls.Binding{"a": {bad}}}
			var cache mtls.Cache
			got, err := cache.GetOrMint(t.Context(), m.source("a", store))
			require.NoError(t, err)
			require.EqualValues(t, 1, m.count.Load())
			require.NotEqual(t, bad.Thumbprint(), got.Thumbprint())
		})
	}
}

func TestGetOrMintSharesOneMint(t *testing.T) {
	m := &minter{t: t, hold: make(chan struct{})}
	var cache mtls.Cache
	var wg sync.WaitGroup
	got := make([]*mtls.Binding, 100)
	for i := range got {
		wg.Go(func() {
			b, err := cache.GetOrMint(t.Context(), m.source("a", nil))
			assert.NoError(t, err)
			got[i] = b
		})
	}
	close(m.hold)
	wg.Wait()
	require.EqualValues(t, 1, m.count.Load())
	for _, b := range got {
		require.Same(t, got[0], b)
	}
}

// The caller who mints may give up; those who wait must neither fail with it nor wait for ever.
func TestGetOrMintOutlivesTheCallerWhoMints(t *testing.T) {
	m := &minter{t: t, hold: make(chan struct{})}
	var cache mtls.Cache
	impatient, giveUp := context.WithCancel(t.Context())
	leader := make(chan error)
	go func() {
		_, err := cache.GetOrMint(impatient, m.source("a", nil))
		leader <- err
	}()
	require.Eventually(t, func() bool { return m.count.Load() == 1 }, 5*time.Second, time.Millisecond)
	follower := make(chan error)
	go func() {
		_, err := cache.GetOrMint(t.Context(), m.source("a", nil))
		follower <- err
	}()
	giveUp()
	require.ErrorIs(t, <-leader, context.Canceled)
	close(m.hold)
	require.NoError(t, <-follower)
	require.EqualValues(t, 2, m.count.Load())

	done, cancel := context.WithCancel(t.Context())
	cancel()
	busy := &minter{t: t, hold: make(chan struct{})}
	go func() { _, _ = cache.GetOrMint(t.Context(), busy.source("b", nil)) }()
	require.Eventually(t, func() bool { return busy.count.Load() == 1 }, 5*time.Second, time.Millisecond)
	_, err := cache.GetOrMint(done, busy.source("b", nil))
	require.ErrorIs(t, err, context.Canceled)
	close(busy.hold)
}

func TestGetOrMintFailureIsSharedButNotKept(t *testing.T) {
	m := &minter{t: t, fail: errors.New("IMDS is on fire")}
	var cache mtls.Cache
	_, err := cache.GetOrMint(t.Context(), m.source("a", nil))
	require.ErrorIs(t, err, m.fail)
	m.fail = nil
	_, err = cache.GetOrMint(t.Context(), m.source("a", nil))
	require.NoError(t, err)
}

func TestGetOrMintRefusesUselessMints(t *testing.T) {
	var cache mtls.Cache
	for name, test := range map[string]struct {
		mint    func(context.Context) (*mtls.Binding, error)
		culprit string
	}{
		"no function":    {nil, "Mint"},
		"nothing":        {func(context.Context) (*mtls.Binding, error) { return nil, nil }, "no binding"},
		"no certificate": {func(context.Context) (*mtls.Binding, error) { return &mtls.Binding{}, nil }, "certificate"},
		"expired":        {(&minter{t: t, edit: lasting(-time.Minute)}).mint, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memoryStore{}
			_, err := cache.GetOrMint(t.Context(), mtls.Source{Alias: "a", Store: store, Mint: test.mint})
			require.ErrorContains(t, err, test.culprit)
			require.NotContains(t, store.calls, "save a", "nothing is kept")
		})
	}
}

// A certificate with less than a day left serves the call that it was minted for, and is kept nowhere.
func TestShortLivedBindingIsNotCached(t *testing.T) {
	m, store := &minter{t: t, edit: lasting(23 * time.Hour)}, &memoryStore{}
	var cache mtls.Cache
	for range 2 {
		_, err := cache.GetOrMint(t.Context(), m.source("a", store))
		require.NoError(t, err)
	}
	require.EqualValues(t, 2, m.count.Load())
	require.Empty(t, store.has("a"))
}

func TestMemoryRotatesADayBeforeTheEnd(t *testing.T) {
	now := time.Now()
	cache := mtls.Cache{Time: func() time.Time { return now }}
	m := &minter{t: t}
	first, err := cache.GetOrMint(t.Context(), m.source("a", nil))
	require.NoError(t, err)
	now = first.Certificate.Leaf.NotAfter.Add(-24 * time.Hour)
	m.edit = lasting(30 * 24 * time.Hour)
	second, err := cache.GetOrMint(t.Context(), m.source("a", nil))
	require.NoError(t, err)
	require.NotEqual(t, first.Thumbprint(), second.Thumbprint())
	require.False(t, first.Evicted(), "rotation is no eviction: tokens of the old certificate stay good")
}

func TestEntriesAreSharedOnlyByTheSameIdentity(t *testing.T) {
	var cache mtls.Cache
	m := &minter{t: t}
	store, keys := &memoryStore{}, &struct{ mtls.SoftwareKeys }{}
	base := mtls.Source{Alias: "a", Endpoint: "http://imds", Keys: keys, Store: store, Mint: m.mint}
	first, err := cache.GetOrMint(t.Context(), base)
	require.NoError(t, err)
	same, err := cache.GetOrMint(t.Context(), base)
	require.NoError(t, err)
	require.Same(t, first, same)
	for name, change := range map[string]func(*mtls.Source){
		"alias":    func(s *mtls.Source) { s.Alias = "b" },
		"endpoint": func(s *mtls.Source) { s.Endpoint, s.Store = "http://other", nil },
		"keys":     func(s *mtls.Source) { s.Keys, s.Store = &struct{ mtls.KeyProvider }{}, nil },
		"store":    func(s *mtls.Source) { s.Store = &memoryStore{} },
		"no store": func(s *mtls.Source) { s.Store = nil },
	} {
		other := base
		change(&other)
		got, err := cache.GetOrMint(t.Context(), other)
		require.NoError(t, err)
		require.NotEqual(t, first.Thumbprint(), got.Thumbprint(), name)
	}
}

type uncomparableStore struct {
	mtls.NoStore
	_ []int
}

func TestUncomparableStoreDoesNotPanic(t *testing.T) {
	var cache mtls.Cache
	_, err := cache.GetOrMint(t.Context(), (&minter{t: t}).source("a", uncomparableStore{}))
	require.NoError(t, err)
}

func TestRemoveBadCert(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src, other := m.source("a", store), m.source("b", store)
	var cache mtls.Cache
	bad, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	bystander, err := cache.GetOrMint(t.Context(), other)
	require.NoError(t, err)

	cache.RemoveBadCert(t.Context(), src, bad)
	require.True(t, bad.Evicted())
	require.Empty(t, store.has("a"))
	require.Equal(t, []string{bystander.Thumbprint()}, store.has("b"), "another alias is untouched")
	require.False(t, bystander.Evicted())

	fresh, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.NotEqual(t, bad.Thumbprint(), fresh.Thumbprint())
	require.Equal(t, []string{fresh.Thumbprint()}, store.has("a"))

	cache.RemoveBadCert(t.Context(), src, bad) // a late caller
	cache.RemoveBadCert(t.Context(), src, nil)
	cache.RemoveBadCert(t.Context(), src, &mtls.Binding{})
	still, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, fresh, still)
	require.Equal(t, []string{fresh.Thumbprint()}, store.has("a"), "the late caller deleted nothing")
	require.EqualValues(t, 3, m.count.Load())
}

// An old binding is rejected while a newer one is in use: the newer one stays, in memory and in the store.
func TestRemoveBadCertKeepsTheNewerBinding(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	var cache mtls.Cache
	current, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	cache.RemoveBadCert(t.Context(), src, binding(t, nil))
	still, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, current, still)
	require.Eventually(t, func() bool { return slices.Equal(store.has("a"), []string{current.Thumbprint()}) }, 5*time.Second, time.Millisecond)
}

// Whatever the store does, a rejected certificate never comes back and a token never waits for long.
func TestRemoveBadCertSurvivesTheStore(t *testing.T) {
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	for name, fail := range map[string]func(op string) error{
		"delete fails": func(op string) error {
			if op == "delete" {
				return errors.New("access denied")
			}
			return nil
		},
		"delete panics": func(op string) error {
			if op == "delete" {
				panic("store bug")
			}
			return nil
		},
		"delete hangs": func(op string) error {
			if op == "delete" {
				<-hung
			}
			return nil
		},
		"everything fails": func(string) error { return errors.New("no disk") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := binding(t, nil)
			m, store := &minter{t: t}, &memoryStore{entries: map[string][]*mtls.Binding{"a": {bad}}}
			src := m.source("a", store)
			var cache mtls.Cache
			first, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			store.mu.Lock()
			store.fail = fail
			store.mu.Unlock()
			cache.RemoveBadCert(t.Context(), src, first)
			fresh, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			require.NotEqual(t, first.Thumbprint(), fresh.Thumbprint())

			cache.RemoveBadCert(t.Context(), src, fresh)
			next, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			require.NotContains(t, []string{first.Thumbprint(), fresh.Thumbprint()}, next.Thumbprint())
		})
	}
}

// IMDS may answer with the certificate that was just rejected; it must not be presented again, nor asked for in a loop.
func TestRejectedCertificateIsNotTakenFromIMDSEither(t *testing.T) {
	bad := binding(t, nil)
	mints := 0
	now := time.Now()
	cache := mtls.Cache{Time: func() time.Time { return now }}
	src := mtls.Source{Alias: "a", Mint: func(context.Context) (*mtls.Binding, error) {
		mints++
		b := *bad
		return &b, nil
	}}
	first, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	cache.RemoveBadCert(t.Context(), src, first)
	for range 100 {
		_, err = cache.GetOrMint(t.Context(), src)
		require.ErrorContains(t, err, "rejected before")
	}
	require.LessOrEqual(t, mints, 3)
}

// refuse plays one call: it gets a binding and has it refused by the token endpoint.
func refuse(t *testing.T, cache *mtls.Cache, src mtls.Source) error {
	t.Helper()
	b, err := cache.GetOrMint(t.Context(), src)
	if err != nil {
		return err
	}
	require.True(t, cache.Refused(t.Context(), src, &mtls.BindingRejectedError{Binding: b, Host: "entra", Err: errors.New("alert")}, ""))
	return nil
}

func TestBackoffOfTheTokenEndpoint(t *testing.T) {
	now := time.Now()
	cache := mtls.Cache{Time: func() time.Time { return now }}
	m := &minter{t: t}
	src := m.source("a", nil)
	require.NoError(t, refuse(t, &cache, src), "the first refusal is what recovery is for")
	require.NoError(t, refuse(t, &cache, src), "the second starts the back-off")
	for refusals, delay := 2, time.Second; refusals < 14; refusals++ {
		for range 50 {
			err := refuse(t, &cache, src)
			var backoff *mtls.BackoffError
			require.ErrorAs(t, err, &backoff)
			require.Equal(t, refusals, backoff.Refusals)
			require.InDelta(t, delay.Seconds(), backoff.Until.Sub(now).Seconds(), delay.Seconds()*0.1+1e-6)
			var cause *mtls.BindingRejectedError
			require.ErrorAs(t, err, &cause, "the cause is at hand at once")
		}
		require.EqualValues(t, refusals, m.count.Load(), "no mint in the meantime")
		now = now.Add(delay + delay/5)
		require.NoError(t, refuse(t, &cache, src), "one mint when the delay is over")
		delay = min(2*delay, 5*time.Minute)
	}
	now = now.Add(10 * time.Minute)
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	cache.Accepted(src, b, "")
	cache.RemoveBadCert(t.Context(), src, b)
	require.NoError(t, refuse(t, &cache, src), "a token obtained ends the back-off")
	require.NoError(t, refuse(t, &cache, src))
	require.Error(t, refuse(t, &cache, src))
}

// Bindings from the store and such as have worked do not count: they are what recovery is for.
func TestOnlyFreshBindingsCountTowardsTheBackoff(t *testing.T) {
	stored := binding(t, nil)
	m, store := &minter{t: t}, &memoryStore{entries: map[string][]*mtls.Binding{"a": {stored}}}
	src := m.source("a", store)
	var cache mtls.Cache
	require.NoError(t, refuse(t, &cache, src), "from the store")
	worked, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	cache.Accepted(src, worked, "")
	require.NoError(t, refuse(t, &cache, src), "has worked before")
	require.NoError(t, refuse(t, &cache, src), "first fresh one")
	require.NoError(t, refuse(t, &cache, src), "second fresh one")
	var backoff *mtls.BackoffError
	require.ErrorAs(t, refuse(t, &cache, src), &backoff)
}

// Many callers who see one binding fail count as one refusal.
func TestConcurrentRefusalsOfOneBindingCountOnce(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	var cache mtls.Cache
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			cache.Refused(t.Context(), src, &mtls.BindingRejectedError{Binding: b, Err: errors.New("alert")}, "")
			_, err := cache.GetOrMint(t.Context(), src)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	require.EqualValues(t, 2, m.count.Load())
	require.Equal(t, 1, len(slices.DeleteFunc(store.calls, func(c string) bool { return c != "delete a" })))
}

// A resource that refuses everything must not cost the other resources their binding again and again.
func TestBackoffOfAResource(t *testing.T) {
	now := time.Now()
	cache := mtls.Cache{Time: func() time.Time { return now }}
	m := &minter{t: t}
	src := m.source("a", nil)
	refused := func() bool {
		b, err := cache.GetOrMint(t.Context(), src)
		require.NoError(t, err)
		cache.Accepted(src, b, "") // the token endpoint takes it
		return cache.Refused(t.Context(), src, &mtls.BindingRejectedError{Binding: b, Host: "vault", Err: errors.New("alert")}, "vault")
	}
	require.True(t, refused())
	require.True(t, refused())
	for range 100 {
		require.False(t, refused(), "kept for the other resources")
	}
	require.EqualValues(t, 3, m.count.Load())
	now = now.Add(2 * time.Second)
	require.True(t, refused())
	require.False(t, refused())
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	cache.Accepted(src, b, "vault")
	require.True(t, refused(), "an answer of the resource ends its back-off")
}
