package compare_test

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/compare"
	"github.com/stretchr/testify/require"
)

// What is reported are medians, one turn each, after one that does not count.
func TestTurns(t *testing.T) {
	turns := 0.0
	result := testing.Benchmark(func(b *testing.B) {
		turns = 0
		compare.Turns(b, func() float64 {
			time.Sleep(10 * time.Millisecond) // so that the benchmark soon has enough
			turns++
			return 200
		}, func() float64 { return 100 })
	})
	require.Equal(t, 200.0, result.Extra["ns/ours"])
	require.Equal(t, 100.0, result.Extra["ns/theirs"])
	require.Equal(t, 2.0, result.Extra["ratio"])
	require.Equal(t, float64(result.N)+1, turns)
}

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, compare.Median([]float64{9, 1, 2}))
	require.Equal(t, 7.0, compare.Median([]float64{7}))
	calls := 0
	require.GreaterOrEqual(t, compare.Each(1000, func() { calls++ })(), 0.0, "the clock of Windows may not have ticked")
	require.Equal(t, 1000, calls)
}
