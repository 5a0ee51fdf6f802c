package mtls_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An eviction takes exactly the binding that was refused, from memory and store, and is not repeated for a late caller.
func TestRemoveBadCert(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src, other := m.source("a", store), m.source("b", store)
	cache := at(clock.NewFake(time.Now()))
	bad, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	bystander, err := cache.GetOrMint(t.Context(), other)
	require.NoError(t, err)

	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")))
	require.True(t, bad.Evicted())
	require.Empty(t, store.has("a"))
	require.Equal(t, []string{bystander.Thumbprint()}, store.has("b"), "another alias is untouched")
	require.False(t, bystander.Evicted())

	fresh, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.NotEqual(t, bad.Thumbprint(), fresh.Thumbprint())
	require.Equal(t, []string{fresh.Thumbprint()}, store.has("a"))

	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")), "a late caller may try again")
	require.False(t, cache.RemoveBadCert(t.Context(), src, nil))
	require.False(t, cache.RemoveBadCert(t.Context(), src, &mtls.Refusal{}))
	require.False(t, cache.RemoveBadCert(t.Context(), src, refusal(&mtls.Binding{}, "")))
	still, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, fresh, still)
	require.Equal(t, []string{fresh.Thumbprint()}, store.has("a"), "the late caller deleted nothing")
	require.EqualValues(t, 3, m.count.Load())
}

// A binding that was never the one in memory, and is refused while another serves, costs nothing and gets its
// tombstone.
func TestRefusalOfAnOldBindingTouchesNothing(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	current, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	old := binding(t, nil)
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(old, "")))
	still, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, current, still)
	require.Equal(t, []string{current.Thumbprint()}, store.has("a"))
	require.NotContains(t, store.calls, "delete a")

	// The unit is still there, and the tombstone bars the store.
	store.entries["a"] = []*mtls.Binding{old}
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(current, "")))
	fresh, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.NotEqual(t, old.Thumbprint(), fresh.Thumbprint())
}

// Another process has healed and stored its binding: it is adopted, from the eviction on or directly before the mint,
// and costs nothing.
func TestNewerBindingOfAnotherProcessIsAdopted(t *testing.T) {
	for name, stored := range map[string]struct {
		edit  func(*mtls.Binding)
		adopt bool
	}{
		"newer":            {func(*mtls.Binding) {}, true},
		"older":            {func(b *mtls.Binding) { *b = *binding(t, starting(-2*time.Hour)) }, false},
		"cannot sign":      {func(b *mtls.Binding) { b.Certificate.PrivateKey = deadKey{testKey()} }, false},
		"less than a day":  {func(b *mtls.Binding) { *b = *binding(t, lasting(23*time.Hour)) }, false},
		"endpoint no good": {func(b *mtls.Binding) { b.Endpoint = "http://host/tenant" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, store := &minter{t: t}, &memoryStore{}
			src := m.source("a", store)
			cache := at(clock.NewFake(time.Now()))
			bad, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			theirs := binding(t, nil)
			stored.edit(theirs)
			store.entries["a"] = []*mtls.Binding{theirs}
			require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")))
			require.True(t, bad.Evicted(), "its connections and bound tokens go either way")
			got, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			require.Equal(t, stored.adopt, got.Thumbprint() == theirs.Thumbprint())
			require.Equal(t, stored.adopt, m.count.Load() == 1)
			require.Equal(t, stored.adopt, !slices.Contains(store.calls, "delete a"))
			if stored.adopt {
				require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(got, "")), "the unit is still there")
				require.EqualValues(t, 1, m.count.Load())
			}
		})
	}
}

// Between the eviction and the mint another process stores its binding: it is found directly before minting.
func TestStoreIsReadOnceMoreBeforeMinting(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	bad, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")))
	theirs := binding(t, nil)
	store.entries["a"] = []*mtls.Binding{theirs}
	got, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, theirs.Thumbprint(), got.Thumbprint())
	require.EqualValues(t, 1, m.count.Load())
}

// Whatever the store does, a refused certificate never comes back and a token never waits for long.
func TestRemoveBadCertSurvivesTheStore(t *testing.T) {
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	onDelete := func(what func() error) func(string) error {
		return func(op string) error {
			if op == "delete" {
				return what()
			}
			return nil
		}
	}
	for name, fail := range map[string]func(op string) error{
		"delete fails":     onDelete(func() error { return errors.New("access denied") }),
		"delete panics":    onDelete(func() error { panic("store bug") }),
		"delete hangs":     onDelete(func() error { <-hung; return nil }),
		"everything fails": func(string) error { return errors.New("no disk") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := binding(t, nil)
			m, store := &minter{t: t}, &memoryStore{entries: map[string][]*mtls.Binding{"a": {bad}}}
			src := m.source("a", store)
			now := clock.NewFake(time.Now())
			cache := at(now)
			first, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			store.mu.Lock()
			store.fail = fail
			store.mu.Unlock()
			for range 2 {
				require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(first, "")))
				fresh, err := cache.GetOrMint(t.Context(), src)
				require.NoError(t, err)
				require.NotEqual(t, bad.Thumbprint(), fresh.Thumbprint())
				require.NotEqual(t, first.Thumbprint(), fresh.Thumbprint())
				first = fresh
				now.Advance(time.Minute)
			}
		})
	}
}

// A delete that failed is made up for before the next save, so that the next process does not find the refused
// certificate.
func TestDeleteIsMadeUpFor(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	bad, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	failures := 1
	store.fail = func(op string) error {
		if op == "delete" && failures > 0 {
			failures--
			return errors.New("another process holds the lock")
		}
		return nil
	}
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")))
	require.Equal(t, []string{bad.Thumbprint()}, store.has("a"))
	fresh, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, []string{fresh.Thumbprint()}, store.has("a"))
}

// A store that never deletes is asked once with each load and each save, and keeps the new binding.
func TestStoreThatNeverDeletes(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	store.fail = failing("delete", errors.New("the store is read-only"))
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	bad, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")))
	store.calls = nil
	fresh, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, []string{"load a", "delete a", "delete a", "save a"}, store.calls)
	require.Equal(t, []string{bad.Thumbprint(), fresh.Thumbprint()}, store.has("a"))
}

// It is made up for as well when the store is read and gives what was refused. What another process has stored above it
// is adopted, and not lost to a deletion that came too late.
func TestDeleteIsMadeUpForByReading(t *testing.T) {
	for name, healed := range map[string]bool{"only the refused one": false, "a newer one above it": true} {
		t.Run(name, func(t *testing.T) {
			busy := true
			m, store := &minter{t: t}, &memoryStore{}
			store.fail = func(op string) error {
				if op == "delete" && busy {
					return errors.New("another process holds the lock")
				}
				return nil
			}
			src := m.source("a", store)
			cache := at(clock.NewFake(time.Now()))
			bad, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(bad, "")))
			require.Equal(t, []string{bad.Thumbprint()}, store.has("a"))

			m.fail = errors.New("IMDS is away")
			busy = false
			theirs := binding(t, nil)
			if healed {
				store.entries["a"] = append(store.entries["a"], theirs)
			}
			b, err := cache.GetOrMint(t.Context(), src)
			if !healed {
				require.ErrorIs(t, err, m.fail)
				require.Empty(t, store.has("a"), "although there was nothing to save")
				return
			}
			require.NoError(t, err)
			require.Equal(t, theirs.Thumbprint(), b.Thumbprint())
			require.Equal(t, []string{bad.Thumbprint(), theirs.Thumbprint()}, store.has("a"))
		})
	}
}

// The caller's end does not end the deletion, which is of use to all.
func TestRemoveBadCertOutlivesItsCaller(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	bad, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cache.RemoveBadCert(ctx, src, refusal(bad, ""))
	require.Eventually(t, func() bool { return len(store.has("a")) == 0 }, 5*time.Second, time.Millisecond)
	require.True(t, bad.Evicted())
}

// A store that hangs for good holds up nobody, and nothing piles up behind it: at most one operation runs and one
// waits.
func TestStoreThatHangs(t *testing.T) {
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	store := &memoryStore{fail: func(string) error { <-hung; return nil }}
	m := &minter{t: t, fail: errors.New("IMDS is ill")}
	var cache mtls.Cache
	start := time.Now()
	for range 5000 {
		_, err := cache.GetOrMint(t.Context(), m.source("a", store))
		require.ErrorIs(t, err, m.fail)
	}
	require.Less(t, time.Since(start), 10*time.Second)
	store.mu.Lock()
	defer store.mu.Unlock()
	require.LessOrEqual(t, len(store.calls), 2)
}

// IMDS keeps what it issued. The evicted certificate is not taken again without asking it to bypass its cache, and
// taken if it is the same once more, since the alarm may have been false.
func TestSameCertificateAgain(t *testing.T) {
	m, store := &minter{t: t, again: binding(t, nil)}, &memoryStore{}
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	first, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(first, "")))
	again, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, first.Thumbprint(), again.Thumbprint())
	require.Equal(t, []mtls.MintRequest{{}, {}, {BypassCache: true}}, m.requests)
	require.False(t, again.Evicted(), "the same certificate is another binding")
	require.Equal(t, []string{again.Thumbprint()}, store.has("a"))

	// A refusal of the first one does not touch the second, and its certificate is barred no more.
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(first, "")))
	served, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, again, served)
	loaded, err := at(clock.NewFake(time.Now())).GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, again.Thumbprint(), loaded.Thumbprint())
	require.False(t, cache.RemoveBadCert(t.Context(), src, refusal(again, "")), "it was counted")
}

// Many callers who see one binding fail cause one eviction and one mint, and all may try again.
func TestConcurrentRefusalsOfOneBindingCountOnce(t *testing.T) {
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	cache := at(clock.NewFake(time.Now()))
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			assert.True(t, cache.RemoveBadCert(t.Context(), src, refusal(b, "")))
			got, err := cache.GetOrMint(t.Context(), src)
			assert.NoError(t, err)
			assert.NotSame(t, b, got)
		})
	}
	wg.Wait()
	require.EqualValues(t, 2, m.count.Load())
	require.Len(t, slices.DeleteFunc(store.calls, func(c string) bool { return c != "delete a" }), 1)
}

// Bindings of other processes are adopted one after the other; while nothing may be evicted, the store is looked into
// once a second.
func TestNewerBindingsAreLookedForOnceASecond(t *testing.T) {
	now := clock.NewFake(time.Now())
	m, store := &minter{t: t}, &memoryStore{}
	s := &spender{t, at(now), m.source("a", store), "", now}
	for range 8 {
		s.next() // the next unit is minutes away
	}
	bad, err := s.cache.GetOrMint(t.Context(), s.src)
	require.NoError(t, err)
	require.False(t, s.cache.RemoveBadCert(t.Context(), s.src, refusal(bad, "")))
	minted := m.count.Load()
	for n := range 3 {
		theirs := binding(t, starting(time.Duration(n-50)*time.Minute))
		store.entries["a"], store.calls = []*mtls.Binding{theirs}, nil
		for range 2 {
			require.False(t, s.cache.RemoveBadCert(t.Context(), s.src, refusal(bad, "")))
			require.Empty(t, store.calls, "it is too early to look")
			now.Advance(500 * time.Millisecond)
		}
		require.True(t, s.cache.RemoveBadCert(t.Context(), s.src, refusal(bad, "")))
		bad, err = s.cache.GetOrMint(t.Context(), s.src)
		require.NoError(t, err)
		require.Equal(t, theirs.Thumbprint(), bad.Thumbprint())
	}
	require.Equal(t, minted, m.count.Load())
}
