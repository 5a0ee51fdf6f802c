package azmtls_test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// Verdicts.
const (
	right  = "right"
	missed = "MISSED" // less was done for the call than was expected
	wrong  = "WRONG"
)

func (c *cell) expectation() string { return strings.Join(c.expected, ", or: ") }

// judge compares what was seen with what the oracle expects.
func (c *cell) judge() {
	healed := func(s string) int { return strings.Count(s, "evicted") + strings.Count(s, "ok,") }
	switch least := slices.MinFunc(c.expected, func(a, b string) int { return healed(a) - healed(b) }); {
	case slices.Contains(c.expected, c.seen):
		c.verdict = right
	case healed(c.seen) < healed(least):
		c.verdict = missed
	default:
		c.verdict = wrong
	}
}

// row is a line of the table: cells that differ only in dimensions without influence.
type row struct {
	dimensions [6][]string // values of each
	rest       string      // expected, seen, verdict
	count      int
}

const (
	byFault = iota
	byTLS
	byConnection
	byLeg
	byOften
	byOrigin
)

func (c *cell) row(exact bool) *row {
	seen := c.seen
	if c.verdict == right && !exact {
		seen = "as expected"
	}
	name := c.fault.name
	if c.fault.at != "" {
		name += " " + c.fault.at
	}
	return &row{
		dimensions: [6][]string{
			{name}, {strings.TrimPrefix(tls.VersionName(c.tls), "TLS ")}, {string(c.conn)}, {string(c.leg)}, {string(c.often)},
			{string(c.origin)},
		},
		rest:  strings.Join([]string{c.expectation(), seen, c.verdict}, " | "),
		count: 1,
	}
}

// merge makes one row of those that differ in one dimension only.
func merge(rows []*row, dimension int) (merged []*row) {
	alike := map[string]*row{}
	for _, r := range rows {
		others := r.dimensions
		others[dimension] = nil
		key := fmt.Sprintf("%q %s", others, r.rest)
		if first := alike[key]; first != nil {
			first.dimensions[dimension] = append(first.dimensions[dimension], r.dimensions[dimension]...)
			first.count += r.count
			continue
		}
		alike[key] = r
		merged = append(merged, r)
	}
	return merged
}

// list writes the values of a dimension; words that all of them begin with are written once.
func list(values []string) string {
	first, _, _ := strings.Cut(values[0], " ")
	for _, v := range values {
		if !strings.HasPrefix(v, first+" ") {
			return strings.Join(values, ", ")
		}
	}
	short := slices.Clone(values)
	for i := range short[1:] {
		short[i+1] = strings.TrimPrefix(short[i+1], first+" ")
	}
	return strings.Join(short, ", ")
}

// report writes the matrix as Markdown. Exact is with what was seen where there are several ways; that differs from run to run.
func report(faults []*fault, cells []*cell, exact bool) string {
	var b strings.Builder
	fmt.Fprint(&b, `# Evidence

What becomes of a binding, fault by fault: the matrix that `+"`go test -run Matrix .`"+` runs, against a simulated IMDS,
Entra and resource. A cell is one fault x TLS version x connection x request x how often x where the binding came from. What
is expected is worked out from the design alone. Rows stand for all combinations of what they list.

- **fresh**: a new connection to a host that never accepted the binding; **reused**: one that has served a request;
  **answered before**: a new one to a host that accepted the binding within the last 5 minutes.
- **always**: whenever that certificate is presented. Where a fault does not look at certificates, at every one.
- **stored**: left by an earlier process; **memory**: minted by this one.
- **processed**: how many requests the server served, those whose answer was lost included.
- **; then**: the next call of a caller who repeats a POST whose connection was lost, 300 ms later.

`)
	for _, subject := range subjects(faults) {
		var chapter []*cell
		for _, c := range cells {
			if c.fault.subject == subject {
				chapter = append(chapter, c)
			}
		}
		writeChapter(&b, subject, faults, chapter, exact)
	}
	verdicts := map[string]int{}
	for _, c := range cells {
		verdicts[c.verdict]++
	}
	fmt.Fprintf(&b, "%d cells, %d missed, %d wrong\n", len(cells), verdicts[missed], verdicts[wrong])
	return b.String()
}

func subjects(faults []*fault) (subjects []string) {
	for _, f := range faults {
		if !slices.Contains(subjects, f.subject) {
			subjects = append(subjects, f.subject)
		}
	}
	return subjects
}

// writeChapter writes the table of one subject.
func writeChapter(b *strings.Builder, subject string, faults []*fault, cells []*cell, exact bool) {
	slices.SortStableFunc(cells, func(x, y *cell) int { return inOrder(faults, x.fault) - inOrder(faults, y.fault) })
	var rows []*row
	for _, c := range cells {
		rows = append(rows, c.row(exact))
	}
	for _, dimension := range []int{byOrigin, byTLS, byLeg, byConnection, byOften, byFault} {
		rows = merge(rows, dimension)
	}
	fmt.Fprintf(b, "## %s\n\n| fault | TLS | connection | request | how often | binding | cells | expected | seen | verdict |\n",
		subject)
	fmt.Fprintln(b, "|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		for _, values := range r.dimensions {
			fmt.Fprintf(b, "| %s ", list(values))
		}
		fmt.Fprintf(b, "| %d | %s |\n", r.count, r.rest)
	}
	fmt.Fprintln(b)
}
