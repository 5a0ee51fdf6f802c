package mtls

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/stretchr/testify/require"
)

// shelfStore is a Store that holds one binding.
type shelfStore struct {
	NoStore
	held *Binding
}

func (s shelfStore) Load(context.Context, string) (*Binding, error) { return s.held, nil }

// An IMDS that asks to be left alone when it is asked whose machine this is, is left alone by mints too. The stored
// binding serves meanwhile.
func TestPauseThatTheMetadataAsksFor(t *testing.T) {
	fake := clock.NewFake(time.Now())
	cache := &Cache{Clock: fake.Clock()}
	busy := failure.Pause(errors.New("429"), time.Minute)
	held, mints := plain(t), 0
	src := Source{
		Alias: "a", Store: shelfStore{held: held},
		Identify: func(context.Context) (Identity, error) { return Identity{}, busy },
		Mint: func(context.Context, MintRequest) (*Binding, error) {
			mints++
			return plain(t), nil
		},
	}
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, held.Thumbprint(), b.Thumbprint())
	require.ErrorIs(t, cache.Renew(t.Context(), src), busy)
	require.Zero(t, mints)
	fake.Advance(time.Minute)
	require.NoError(t, cache.Renew(t.Context(), src))
	require.Equal(t, 1, mints)
}

// What the metadata said of an identity is remembered: who comes with the same answer of Entra's later is told so, and
// nothing is asked again.
func TestDisownedOnceIsDisownedEver(t *testing.T) {
	e := newEntry(clock.NewFake(time.Now()).Clock(), &imds{})
	asked := 0
	src := Source{Identify: func(context.Context) (Identity, error) {
		asked++
		return Identity{ClientID: "another", TenantID: "another"}, nil
	}}
	b := plain(t)
	e.minted(src, b)
	require.False(t, b.Disowned())
	for range 3 {
		require.True(t, b.disowned(t.Context()))
		require.True(t, b.Disowned())
	}
	require.Equal(t, 1, asked)
}

// Where nobody can ask the metadata, Entra's word disowns nothing.
func TestNobodyToAsk(t *testing.T) {
	b := plain(t)
	require.False(t, b.disowned(t.Context()))
	e := newEntry(clock.NewFake(time.Now()).Clock(), &imds{})
	e.admit(Source{}, b)
	require.True(t, e.adopt(b))
	require.False(t, b.disowned(t.Context()))
	require.False(t, b.Disowned())
	e.check(t.Context(), Source{}, b)
	require.Zero(t, e.nextCheck, "nothing is begun")
}
