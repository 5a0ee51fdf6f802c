package tokencache_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

type key struct{ *ecdsa.PrivateKey }

func (key) Strength() mtls.BindingStrength { return mtls.StrengthSoftware }

// minted returns a binding that a Cache has given out, with its Cache and Source.
func minted(t testing.TB, c *clock.Clock) (*mtls.Binding, *mtls.Cache, mtls.Source) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    c.Wall().Add(-time.Hour),
		NotAfter:     c.Wall().Add(7 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	cache := &mtls.Cache{Clock: c}
	source := mtls.Source{Alias: "a", Mint: func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
		return &mtls.Binding{
			Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key{private}, Leaf: leaf},
			Endpoint:    "https://entra.example/tenant",
		}, nil
	}}
	b, err := cache.GetOrMint(t.Context(), source)
	require.NoError(t, err)
	return b, cache, source
}

func scope(i int) tokencache.Key {
	return tokencache.Key{Resource: fmt.Sprintf("https://resource-%d", i)}
}

// Reading allocates nothing, and adding a token costs the same with 100,000 as with 10: at most 700 bytes beyond its
// string, which is kept once.
func TestCostIsFlat(t *testing.T) {
	const length = 1400
	padding := strings.Repeat("x", length)
	b, _, _ := minted(t, nil)
	size := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, bound := range []bool{false, true} {
		c := tokencache.New(nil)
		defer runtime.KeepAlive(c) // lest the next one is measured while this one goes
		added := 0
		add := func(n int) {
			for range n {
				key := scope(added)
				key.Bound = bound
				c.Put(c.NewEntry(key, fmt.Sprint(added, padding)[:length], time.Hour, time.Hour/2, b))
				added++
			}
		}
		allocations := func() float64 { return testing.AllocsPerRun(500, func() { add(1) }) }
		add(10)
		few := allocations()
		before, at := size(), added
		add(100_000 - added)
		require.Less(t, (size()-before)/uint64(added-at), uint64(length+700), "bound %t", bound)
		require.LessOrEqual(t, allocations(), few+1)
		key := scope(77)
		key.Bound = bound
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if e, _ := c.Get(key); e == nil {
				t.Error("not there")
			}
		}))
	}
}

// Tokens that have expired are forgotten, also if nobody asks for them again; bound ones a day later, since a client
// whose wall clock was set back may still send them.
func TestExpiredTokensAreForgotten(t *testing.T) {
	fake := clock.NewFake(time.Now())
	b, _, _ := minted(t, fake.Clock())
	c := tokencache.New(fake.Clock())
	for round := range 10 {
		for i := range 1000 {
			k := scope(1000*round + i)
			k.Bound = true
			c.Put(c.NewEntry(k, fmt.Sprint("token ", 1000*round+i), time.Hour, time.Hour/2, b))
		}
		fake.Advance(12 * time.Hour)
	}
	require.Nil(t, c.Issued("token 0"))
	require.NotNil(t, c.Issued("token 8999"), "it expired 23 hours ago")
	require.NotNil(t, c.Issued("token 9999"), "the latest is still known as ours")
}
