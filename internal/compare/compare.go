// Package compare is how the benchmarks of this module measure: what is ours and a reference run in one process and in
// turns, so that what else the machine does falls on both. scripts/benchtable makes BENCHMARKS.md of the metrics that
// they report: <unit>/ours, <unit>/theirs and ratio.
package compare

import (
	"slices"
	"testing"
	"time"
)

// Turns reports the medians of what ours and theirs take, and that of the ratios of all turns.
func Turns(b *testing.B, ours, theirs func() (ns float64)) {
	b.Helper()
	ours()
	theirs()
	var with, without, ratio []float64
	for b.Loop() {
		o, t := ours(), theirs()
		with, without, ratio = append(with, o), append(without, t), append(ratio, o/t)
	}
	b.ReportMetric(Median(with), "ns/ours")
	b.ReportMetric(Median(without), "ns/theirs")
	b.ReportMetric(Median(ratio), "ratio")
	b.ReportMetric(0, "ns/op") // not shown: it is the sum of both
}

// Median returns the median of some values, at least one. It sorts them.
func Median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// Each returns a function that calls f so many times and returns what one call took, on average.
func Each(calls int, f func()) func() (ns float64) {
	return func() float64 {
		start := time.Now()
		for range calls {
			f()
		}
		return float64(time.Since(start)) / float64(calls)
	}
}
