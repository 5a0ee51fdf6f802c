package mtls_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A renewal that is demanded mints, past the cache of IMDS, and swaps: the old binding is not evicted, and the store
// has the new one.
func TestRenewSwaps(t *testing.T) {
	now := clock.NewFake(time.Now())
	cache, m, store := at(now), &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	old, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.NoError(t, cache.Renew(t.Context(), src))
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.NotEqual(t, old.Thumbprint(), b.Thumbprint())
	require.False(t, old.Evicted(), "it serves on")
	require.Equal(t, []mtls.MintRequest{{}, {BypassCache: true}}, m.requests)
	require.Contains(t, store.has("a"), b.Thumbprint())
	require.NotContains(t, store.calls, "delete a")
}

// With nothing in memory there is a mint as well, though the store has a binding.
func TestRenewWithoutABinding(t *testing.T) {
	now := clock.NewFake(time.Now())
	m, store := &minter{t: t}, &memoryStore{}
	src := m.source("a", store)
	_, err := at(now).GetOrMint(t.Context(), src)
	require.NoError(t, err)
	cache := at(now)
	require.NoError(t, cache.Renew(t.Context(), src))
	require.EqualValues(t, 2, m.count.Load())
	_, err = cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.EqualValues(t, 2, m.count.Load())
}

// A renewal costs a unit of the token endpoint's budget, whether it works or not, and none of the resources'. Without
// one it says until when, and the binding at hand serves on.
func TestRenewCostsAUnit(t *testing.T) {
	for name, fail := range map[string]error{
		"success": nil, "a failure that passes": errors.New("503"), "a refusal": failure.Definite(errors.New("400")),
	} {
		t.Run(name, func(t *testing.T) {
			now := clock.NewFake(time.Now().Truncate(time.Second).Add(500 * time.Millisecond)) // units differ by 10 %
			cache, m := at(now), &minter{t: t}
			src := m.foreground("a")
			old, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err)
			m.fail = fail
			require.ErrorIs(t, cache.Renew(t.Context(), src), fail)
			minted := m.count.Load()

			err = cache.Renew(t.Context(), src)
			require.ErrorContains(t, err, "the next attempt is at "+now.Wall().UTC().Add(time.Second).Format("15:04:05 UTC"))
			require.ErrorContains(t, err, "a renewal costs a unit of the budget")
			require.Equal(t, minted, m.count.Load(), "nothing was asked")
			b, err := cache.GetOrMint(t.Context(), src)
			require.NoError(t, err, "the binding at hand serves")
			if fail != nil {
				require.Same(t, old, b)
			}
			require.False(t, cache.RemoveBadCert(t.Context(), src, refusal(b, "")), "there is no unit for Entra's word either")
			require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(b, "resource.example")))
			m.fail = nil
			now.Advance(1100 * time.Millisecond)
			require.NoError(t, cache.Renew(t.Context(), src))
		})
	}
}

// With nothing in memory a renewal that is refused costs the same one unit.
func TestRenewThatIsRefusedCostsOneUnit(t *testing.T) {
	now := clock.NewFake(time.Now())
	cache, m := at(now), &minter{t: t, fail: failure.Definite(errors.New("400"))}
	src := m.source("a", nil)
	require.ErrorIs(t, cache.Renew(t.Context(), src), m.fail)
	now.Advance(1100 * time.Millisecond)
	m.fail = nil
	require.NoError(t, cache.Renew(t.Context(), src))
}

// A mint that was paid for by an eviction is not paid for twice.
func TestRenewAfterAnEviction(t *testing.T) {
	now := clock.NewFake(time.Now())
	cache, m := at(now), &minter{t: t}
	src := m.source("a", nil)
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(b, "")))
	require.NoError(t, cache.Renew(t.Context(), src))
}

// An IMDS that asked to be left alone is.
func TestRenewHeedsAPause(t *testing.T) {
	now := clock.NewFake(time.Now())
	cache, m := at(now), &minter{t: t, fail: failure.Pause(errors.New("429"), 10*time.Minute)}
	src := m.source("a", nil)
	_, err := cache.GetOrMint(t.Context(), src)
	require.ErrorIs(t, err, m.fail)
	require.ErrorIs(t, cache.Renew(t.Context(), src), m.fail)
	require.EqualValues(t, 1, m.count.Load())
	now.Advance(10 * time.Minute)
	m.fail = nil
	require.NoError(t, cache.Renew(t.Context(), src), "it cost nothing")
}

// IMDS may answer with the certificate in use all the same. That is said, since whoever renews wants another.
func TestRenewThatYieldsTheSame(t *testing.T) {
	cache, m := at(clock.NewFake(time.Now())), &minter{t: t}
	m.again = binding(t, nil)
	src := m.source("a", nil)
	old, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.ErrorContains(t, cache.Renew(t.Context(), src), "the certificate in use once more")
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, old, b)
}

// Those who renew at the same time share one mint, and its outcome: also with who asks for a binding and has none.
func TestRenewIsShared(t *testing.T) {
	for name, fail := range map[string]error{"success": nil, "failure": errors.New("503")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := at(clock.NewFake(time.Now())) // not every system tells boot time in a bubble
				m := &minter{t: t, fail: fail, hold: make(chan struct{})}
				src := m.source("a", nil)
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() { assert.ErrorIs(t, cache.Renew(t.Context(), src), fail) })
				}
				synctest.Wait()
				wg.Go(func() {
					_, err := cache.GetOrMint(t.Context(), src)
					assert.ErrorIs(t, err, fail)
				})
				synctest.Wait()
				close(m.hold)
				wg.Wait()
				require.EqualValues(t, 1, m.count.Load())
			})
		})
	}
}

// A mint that is under way is joined. One that only finds a binding in the store renews nothing: then there is a mint.
func TestRenewJoinsWhatIsUnderWay(t *testing.T) {
	for name, test := range map[string]struct {
		stored bool
		mints  int32
	}{"a mint": {false, 1}, "a look into the store": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := at(clock.NewFake(time.Now())) // not every system tells boot time in a bubble
				held := make(chan struct{})
				store := &memoryStore{}
				if test.stored {
					store.entries = map[string][]*mtls.Binding{"a": {binding(t, nil)}}
				}
				store.fail = func(op string) error {
					if op == "load" {
						<-held
					}
					return nil
				}
				m := &minter{t: t}
				src := m.source("a", store)
				var wg sync.WaitGroup
				wg.Go(func() {
					_, err := cache.GetOrMint(t.Context(), src)
					assert.NoError(t, err)
				})
				synctest.Wait()
				wg.Go(func() { assert.NoError(t, cache.Renew(t.Context(), src)) })
				synctest.Wait()
				close(held)
				wg.Wait()
				require.Equal(t, test.mints, m.count.Load())
			})
		})
	}
}

// Who gives up does so alone.
func TestRenewIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := at(clock.NewFake(time.Now())) // not every system tells boot time in a bubble
		m := &minter{t: t, hold: make(chan struct{})}
		src := m.source("a", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, cache.Renew(ctx, src), context.DeadlineExceeded)
		close(m.hold)
		_, err := cache.GetOrMint(t.Context(), src)
		require.NoError(t, err)
		require.EqualValues(t, 1, m.count.Load())
	})
}
