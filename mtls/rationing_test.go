package mtls_test

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// spender evicts a binding whenever it can, on the word of one host.
type spender struct {
	*testing.T
	cache *mtls.Cache
	src   mtls.Source
	host  string
	clock *clock.Fake
}

// next evicts the binding as soon as that is allowed, and returns how long it took.
func (s *spender) next() time.Duration {
	s.Helper()
	b, err := s.cache.GetOrMint(s.Context(), s.src)
	require.NoError(s, err)
	begin := s.clock.Boot()
	for !s.cache.RemoveBadCert(s.Context(), s.src, refusal(b, s.host)) {
		s.clock.Advance(10*time.Millisecond + (s.clock.Boot()-begin)/50)
	}
	took := s.clock.Boot() - begin
	_, err = s.cache.GetOrMint(s.Context(), s.src) // the mint was paid with it
	require.NoError(s, err)
	return took
}

// about demands a delay within 10 %, as it is seen by one who tries again and again.
func (s *spender) about(want time.Duration) {
	s.Helper()
	got := s.next()
	require.GreaterOrEqual(s, got, want*9/10)
	require.LessOrEqual(s, got, want*113/100+20*time.Millisecond)
}

// The first unit is free; the delay to the next doubles up to a cap, and goes back by a step for every cap without one.
// Nothing else brings one back. Entra and the resources have budgets of their own.
func TestBudget(t *testing.T) {
	const entra, resource = "", "resource.example"
	for _, test := range []struct {
		host, other string
		ceiling     time.Duration
	}{{entra, resource, 5 * time.Minute}, {resource, entra, time.Hour}} {
		now := clock.NewFake(time.Now())
		s := &spender{t, at(now), (&minter{t: t}).source("a", nil), test.host, now}
		require.Zero(t, s.next(), "the first one is free")
		delay := time.Second
		for ; delay < test.ceiling; delay *= 2 {
			s.about(delay)
		}
		s.about(test.ceiling)
		s.about(test.ceiling)

		s.host = test.other
		require.Zero(t, s.next(), "the other budget is whole")
		s.about(time.Second)

		s.host = test.host
		now.Advance(3*test.ceiling + time.Minute)
		require.Zero(t, s.next())
		s.about(delay / 4) // three steps back, and one on
	}
}

// Units differ by up to 10 %, so that a fleet does not mint in step.
func TestBudgetsOfAFleetAreSpread(t *testing.T) {
	delays := map[time.Duration]bool{}
	for range 20 {
		now := clock.NewFake(time.Now())
		s := &spender{t, at(now), (&minter{t: t}).source("a", nil), "", now}
		for range 6 { // up to 16 s
			s.next()
		}
		delays[s.next()] = true
	}
	require.Greater(t, len(delays), 5)
}

// A binding that was refused, kept and accepted by nobody is tried once a second, by one caller: the others are told
// why it was refused.
func TestKeptBindingIsTriedOnceASecond(t *testing.T) {
	now := clock.NewFake(time.Now())
	s := &spender{t, at(now), (&minter{t: t}).source("a", nil), "", now}
	s.next()
	b, err := s.cache.GetOrMint(t.Context(), s.src)
	require.NoError(t, err)
	require.False(t, s.cache.RemoveBadCert(t.Context(), s.src, refusal(b, "")), "there is no unit")
	for range 3 {
		_, err = s.cache.GetOrMint(t.Context(), s.src)
		require.True(t, isRefusal(err))
		now.Advance(time.Second - 1)
		_, err = s.cache.GetOrMint(t.Context(), s.src)
		require.True(t, isRefusal(err))
		now.Advance(1)
		tried, err := s.cache.GetOrMint(t.Context(), s.src)
		require.NoError(t, err)
		require.Same(t, b, tried)
	}
}
