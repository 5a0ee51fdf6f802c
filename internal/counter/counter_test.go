package counter_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/azmtls/azmtls/internal/counter"
	"github.com/stretchr/testify/require"
)

// Nothing that was counted is lost, whoever counts at the same time.
func TestCounter(t *testing.T) {
	var c counter.Counter
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 1000 {
				c.Inc()
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 100_000, c.Load())
	require.Zero(t, testing.AllocsPerRun(100, c.Inc))
}

// BenchmarkCounter puts it beside a single atomic integer: run it with -cpu 1,2,4.
func BenchmarkCounter(b *testing.B) {
	b.Run("sharded", func(b *testing.B) {
		var c counter.Counter
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				c.Inc()
			}
		})
	})
	b.Run("atomic", func(b *testing.B) {
		var c atomic.Uint64
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				c.Add(1)
			}
		})
	})
}
