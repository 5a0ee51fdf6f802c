package mtls_test

import (
	"context"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

// The caller who asked first may give up: the mint goes on for those who come later, and is paid once.
func TestMintOutlivesItsCaller(t *testing.T) {
	m := &minter{t: t, hold: make(chan struct{})}
	var cache mtls.Cache
	impatient, giveUp := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := cache.GetOrMint(impatient, m.source("a", nil))
		first <- err
	}()
	require.Eventually(t, func() bool { return m.count.Load() == 1 }, 5*time.Second, time.Millisecond)
	giveUp()
	err := <-first
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "waiting for a binding")
	close(m.hold)
	_, err = cache.GetOrMint(t.Context(), m.source("a", nil))
	require.NoError(t, err)
	require.EqualValues(t, 1, m.count.Load())
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
	otherKey, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	for name, test := range map[string]struct {
		mint    func(context.Context, mtls.MintRequest) (*mtls.Binding, error)
		culprit string
	}{
		"no function":    {nil, "Mint"},
		"nothing":        {func(context.Context, mtls.MintRequest) (*mtls.Binding, error) { return nil, nil }, "no binding"},
		"no certificate": {func(context.Context, mtls.MintRequest) (*mtls.Binding, error) { return &mtls.Binding{}, nil }, "certificate"},
		"another key": {func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
			b := binding(t, nil)
			b.Certificate.PrivateKey = otherKey
			return b, nil
		}, "another key"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memoryStore{}
			_, err := new(mtls.Cache).GetOrMint(t.Context(), mtls.Source{Alias: "a", Store: store, Mint: test.mint})
			require.ErrorContains(t, err, test.culprit)
			require.NotContains(t, store.calls, "save a", "nothing is kept")
		})
	}
}

// A certificate with less than a day left serves from memory as long as it lasts, and is written to no store.
func TestShortLivedBindingStaysInMemory(t *testing.T) {
	now := clock.NewFake(time.Now())
	m, store := &minter{t: t, edit: lasting(23 * time.Hour)}, &memoryStore{}
	cache := at(now)
	for range 2 {
		_, err := cache.GetOrMint(t.Context(), m.source("a", store))
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, m.count.Load())
	require.Empty(t, store.has("a"))
}

// A binding serves until 5 minutes before its end, or a tenth of its life if that is less.
func TestBindingServesUntilItsMargin(t *testing.T) {
	for life, margin := range map[time.Duration]time.Duration{7 * 24 * time.Hour: 5 * time.Minute, 20 * time.Minute: 2 * time.Minute} {
		now := clock.NewFake(time.Now())
		m := &minter{t: t, edit: func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Wall(), now.Wall().Add(life) }}
		cache := at(now)
		first, err := cache.GetOrMint(t.Context(), m.foreground("a"))
		require.NoError(t, err)
		now.Advance(life - margin - 3*time.Second)
		still, err := cache.GetOrMint(t.Context(), m.foreground("a"))
		require.NoError(t, err)
		require.Same(t, first, still)
		now.Advance(4 * time.Second)
		second, err := cache.GetOrMint(t.Context(), m.foreground("a"))
		require.NoError(t, err)
		require.NotEqual(t, first.Thumbprint(), second.Thumbprint())
		require.False(t, first.Evicted(), "that it ended is no eviction: bound tokens of it stay good")
	}
}

// The clock of IMDS says whether what it issued is valid, and for how long; ours, set wrong, judges nothing.
func TestIMDSsClockCounts(t *testing.T) {
	day := 24 * time.Hour
	for wrong, expired := range map[time.Duration]bool{-8 * day: false, 8 * day: false, 0: true} {
		now := clock.NewFake(time.Now().Add(wrong))
		b := binding(t, nil)
		b.Issued = time.Now()
		if expired {
			b.Issued = b.UsableUntil().Add(time.Minute)
		}
		m := &minter{t: t, again: b}
		cache := at(now)
		_, err := cache.GetOrMint(t.Context(), m.foreground("a"))
		if expired {
			require.ErrorContains(t, err, "expired")
			continue
		}
		require.NoError(t, err)
		now.Advance(6 * day)
		_, err = cache.GetOrMint(t.Context(), m.foreground("a"))
		require.NoError(t, err)
		require.EqualValues(t, 1, m.count.Load(), "it serves its whole life, from when it was issued")
		now.Advance(day)
		_, err = cache.GetOrMint(t.Context(), m.foreground("a"))
		require.NoError(t, err)
		require.EqualValues(t, 2, m.count.Load())
	}
	early := binding(t, nil)
	early.Issued = early.Certificate.Leaf.NotBefore.Add(-time.Minute)
	_, err := new(mtls.Cache).GetOrMint(t.Context(), (&minter{t: t, again: early}).source("a", nil))
	require.ErrorContains(t, err, "not valid before")
}

// A source that demands a stronger key than the binding has gets one minted, which then serves the others too.
func TestTooWeakABindingIsNotServed(t *testing.T) {
	var cache mtls.Cache
	m := &minter{t: t}
	weak := m.source("a", nil)
	first, err := cache.GetOrMint(t.Context(), weak)
	require.NoError(t, err)
	strong := weak
	strong.MinStrength = mtls.StrengthTPM
	strong.Mint = func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
		b := binding(t, nil)
		b.Certificate.PrivateKey = tpmKey{testKey()}
		return b, nil
	}
	second, err := cache.GetOrMint(t.Context(), strong)
	require.NoError(t, err)
	require.NotEqual(t, first.Thumbprint(), second.Thumbprint())
	require.False(t, first.Evicted())
	served, err := cache.GetOrMint(t.Context(), weak)
	require.NoError(t, err)
	require.Same(t, second, served)
}

type tpmKey struct{ softKey }

func (tpmKey) Strength() mtls.BindingStrength { return mtls.StrengthTPM }

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
