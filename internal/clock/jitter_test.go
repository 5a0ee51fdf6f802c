package clock_test

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/stretchr/testify/require"
)

// A fleet spreads over a tenth either way, and over the whole of it.
func TestSpread(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 10_000 {
		d := clock.Spread(time.Minute)
		least, most = min(least, d), max(most, d)
	}
	require.InDelta(t, 54, least.Seconds(), 0.1)
	require.InDelta(t, 66, most.Seconds(), 0.1)
	require.GreaterOrEqual(t, least, 54*time.Second)
	require.LessOrEqual(t, most, 66*time.Second)
}
