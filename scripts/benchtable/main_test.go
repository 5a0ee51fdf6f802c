package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// printed returns what go test prints for all benchmarks, with a value for every metric that the table shows.
func printed(ratio float64) string {
	var b strings.Builder
	b.WriteString("goos: linux\npkg: github.com/azmtls/azmtls\ncpu: Some CPU\n")
	for _, r := range rows {
		fmt.Fprintf(
			&b,
			"Benchmark%s-%d \t 100\t 7.500 ns/ours\t 7500000 ns/theirs\t %g ratio\t 3 allocs/ours\t 9 allocs/theirs\t"+
				" 650 B/ours\t 1 metadata\t 1 issue\t 50 token\n",
			r.benchmark,
			runtime.GOMAXPROCS(0),
			ratio,
		)
	}
	return b.String() + "PASS\nok  \tgithub.com/azmtls/azmtls\t1.0s\n"
}

// The table says what was measured and whether that is what was wanted. A goal that is missed is a line like any other.
func TestTable(t *testing.T) {
	for ratio, want := range map[float64][]string{
		0.04: {
			"| cached `GetToken`, 1 token | 7.5 ns | azidentity: 7.5 ms | 1 : 25 | ≥ 20 times as fast | met |",
			"| … 50 tokens | 7.5 ns | azidentity: 7.5 ms | 1 : 25 | ≥ 45 times as fast | **missed** |",
		},
		1.12: {
			"| cold start, key at hand | 7.5 ns | by hand: 7.5 ms | 1.12 | ≤ 1.15 | met |",
			"| a request of a bound client | 7.5 ns | unbound: 7.5 ms | 1.12 | ≤ 1.03 | **missed** |",
			"| … allocations, 1 token | 3 allocations | azidentity: 9 allocations | – | 0 | **missed** |",
			"| … memory beyond its string | 650 B | – | – | ≤ 700 B | met |",
			"| 5,000 callers, 50 scopes | 1 metadata, 1 issue, 50 token | – | – | 1 metadata, 1 issue, 50 token | met |",
			"| 10,000 callers, nothing cached | 1 metadata, 1 issue, 50 token | – | – | 1 metadata, 1 issue, 1 token | **missed** |",
			"| … at once | 7.5 ns | cold, key at hand: 7.5 ms | 1.12 | – |  |",
		},
	} {
		results, cpu, err := read(strings.NewReader(printed(ratio)))
		require.NoError(t, err)
		require.Equal(t, "Some CPU", cpu)
		markdown, err := table(results)
		require.NoError(t, err)
		for _, line := range want {
			require.Contains(t, markdown, line+"\n")
		}
	}
}

// A benchmark that is gone is missed.
func TestTableNeedsEveryBenchmark(t *testing.T) {
	results, _, err := read(strings.NewReader(printed(1)))
	require.NoError(t, err)
	delete(results, "BoundClient")
	_, err = table(results)
	require.ErrorContains(t, err, "BenchmarkBoundClient")
}
