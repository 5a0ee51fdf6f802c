package azmtls_test

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// The benchmarks put what is measured beside a reference, in one process and in turns, so that what else the machine
// does falls on both. scripts/benchtable makes BENCHMARKS.md of the metrics that they report: <unit>/ours,
// <unit>/theirs and ratio.

// compare reports the medians of what ours and theirs take, and that of the ratios of all turns.
func compare(b *testing.B, ours, theirs func() (ns float64)) {
	b.Helper()
	ours()
	theirs()
	var with, without, ratio []float64
	for b.Loop() {
		o, t := ours(), theirs()
		with, without, ratio = append(with, o), append(without, t), append(ratio, o/t)
	}
	b.ReportMetric(median(with), "ns/ours")
	b.ReportMetric(median(without), "ns/theirs")
	b.ReportMetric(median(ratio), "ratio")
	b.ReportMetric(0, "ns/op") // not shown: it is the sum of both
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// each returns a function that calls f so many times and returns what one call took, on average.
func each(calls int, f func()) func() (ns float64) {
	return func() float64 {
		start := time.Now()
		for range calls {
			f()
		}
		return float64(time.Since(start)) / float64(calls)
	}
}

// onRealClock returns options for a simulator that tell the time by the real clock, whose cost is part of what is
// measured, and have their key at hand.
func onRealClock(t testing.TB, server *imdstest.Server) *azmtls.ImdsV2MtlsCredentialOptions {
	t.Helper()
	testKey()
	return &azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(),
		MTLSTransport: server.MTLSTransport(),
		KeyProvider:   &keys{},
		Store:         mtls.NoStore{},
		Cache:         &mtls.Cache{},
	}
}

// settle waits until no more goroutines run than there were: what was begun in the background has ended.
func settle(b *testing.B, goroutines int) {
	b.Helper()
	for range 10_000 {
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(time.Millisecond)
	}
	require.FailNow(b, "what was begun in the background does not end")
}
