package mtls

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/stretchr/testify/require"
)

// simulate has a peer refuse in steps of 100 ms and returns how many bindings were minted, the first one included.
func simulate(b *budget, from, length time.Duration, refuses func(call int) bool) (mints int) {
	mints = 1
	for call := range int(length / (100 * time.Millisecond)) {
		if refuses(call) && b.spend(from+time.Duration(call)*100*time.Millisecond) {
			mints++
		}
	}
	return mints
}

// The figures are the design's, for ten calls a second.
func TestBudgetSimulated(t *testing.T) {
	always := func(int) bool { return true }
	second := func(call int) bool { return call%2 == 0 }
	for name, test := range map[string]struct {
		cap      time.Duration
		length   time.Duration
		refuses  func(int) bool
		expected int
		within   float64 // the delays vary by a tenth
	}{
		"Entra refuses every second request, 8 s": {tokenCap, 8 * time.Second, second, 5, 0},
		"Entra refuses always, 1 h":               {tokenCap, time.Hour, always, 21, 1},
		"IMDS refuses, 24 h":                      {tokenCap, 24 * time.Hour, always, 297, 6},
		"a bad host, 24 h":                        {resourceCap, 24 * time.Hour, second, 36, 2},
		"40 hosts once each":                      {resourceCap, 4 * time.Second, always, 4, 0},
		"a real revocation":                       {tokenCap, time.Hour, func(call int) bool { return call == 0 }, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				b := budget{cap: test.cap}
				require.InDelta(t, test.expected, simulate(&b, time.Hour, test.length, test.refuses), test.within)
			}
		})
	}
}

// The first unit is free, the next ones come after 1 s, 2 s, 4 s … and the cap, give or take a tenth; each cap without
// one spent takes a step back. Nothing else does.
func TestBudgetSteps(t *testing.T) {
	b := budget{cap: tokenCap}
	now := time.Hour
	for _, seconds := range []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300} {
		require.True(t, b.spend(now))
		require.False(t, b.spend(now))
		require.InDelta(t, seconds, (b.next - now).Seconds(), seconds*clock.Jitter+1e-6)
		require.False(t, b.available(b.next-1))
		now = b.next
	}
	now = b.last + 3*tokenCap // three steps back, one forth
	require.True(t, b.spend(now))
	require.InDelta(t, 128, (b.next - now).Seconds(), 13)
	now += 24 * time.Hour
	require.True(t, b.spend(now))
	require.InDelta(t, 1, (b.next - now).Seconds(), 0.1+1e-6, "a day of peace, and all is as at the start")
}

// A fleet must not mint in step.
func TestBudgetVaries(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 10 {
		b := budget{cap: tokenCap}
		b.charge(0)
		seen[b.next] = true
	}
	require.Greater(t, len(seen), 5)
}
