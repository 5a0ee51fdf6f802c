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

func (c *cell) expectation() string {
	var texts []string
	for _, outcomes := range c.expected {
		texts = append(texts, account(outcomes))
	}
	if len(texts) <= 2 {
		return strings.Join(texts, ", or: ")
	}
	return fmt.Sprintf("a race with %d ways, from *%s* to *%s*", len(texts), texts[0], texts[len(texts)-1])
}

func (c *cell) sight() string { return account(c.seen) + c.complaints }

// judge compares what was seen with what the oracle expects.
func (c *cell) judge() {
	asSeen := func(e []outcome) bool { return slices.Equal(e, c.seen) }
	least := healing(c.expected[0])
	for _, e := range c.expected {
		least = min(least, healing(e))
	}
	switch {
	case c.complaints == "" && slices.ContainsFunc(c.expected, asSeen):
		c.verdict = right
	case healing(c.seen) < least && c.complaints == "":
		c.verdict = missed
	default:
		c.verdict = wrong
	}
}

// healing is how much was done for the calls.
func healing(outcomes []outcome) (sum int) {
	for _, o := range outcomes {
		sum += o.evicted + o.minted
		if o.result == "ok" {
			sum++
		}
	}
	return sum
}

// row is a line of the table: cells that differ only in dimensions without influence.
type row struct {
	dimensions [7][]string // values of each
	rest       string      // expected, seen, verdict
	count      int
}

const (
	byFault = iota
	byStage
	byTLS
	byConnection
	byLeg
	byOften
	byOrigin
)

func (c *cell) row(exact bool) *row {
	seen := c.sight()
	if c.verdict == right && !exact {
		seen = "as expected"
	}
	return &row{
		dimensions: [7][]string{
			{c.fault.name}, {c.fault.at}, {strings.TrimPrefix(tls.VersionName(c.tls), "TLS ")}, {string(c.conn)},
			{string(c.leg)}, {string(c.often)}, {string(c.origin)},
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

// list writes the values of a dimension. Alerts are numbers.
func list(values []string) string {
	first, others, _ := strings.Cut(strings.Join(values, "; "), "; ")
	if others == "" {
		return first
	}
	return first + "; " + strings.ReplaceAll(others, "alert ", "")
}

// report writes the matrix as Markdown. Exact is with what was seen, which differs from run to run where there are
// several ways.
func report(faults []*fault, cells []*cell, exact bool) string {
	var b strings.Builder
	fmt.Fprint(&b, `# Evidence

What becomes of a binding, fault by fault: the matrix that `+"`go test -run Matrix .`"+` runs, against a simulated IMDS,
Entra and resource. A cell is one fault x TLS version x connection x request x how often x where the binding came from.
What is expected is worked out from the design alone. Rows stand for all combinations of what they list.

- **fresh**: a new connection to a host that never accepted the binding; **reused**: one that has served a request;
  **answered before**: a new one to a host that accepted the binding within the last 5 minutes.
- **always**: whenever that certificate is presented; a fault that does not look at certificates strikes at every one.
  **every certificate**: at the one that was minted instead, too.
- **stored**: left by an earlier process; **memory**: minted by this one.
- **ok**: the caller got what it asked for; **answer**: the server's answer of another status; **error**; **refusal**:
  an error that is a *mtls.Refusal*.
- **processed**: how many requests the server served, those whose answer was lost included.
- **then**: the next call of a caller who repeats a POST whose connection was lost, 300 ms later.
- **or**: the design leaves a choice, or it is a race on the wire: in TLS 1.3 a server that ends the connection at the
  sight of the certificate may do so before or after a POST was written.
- Alert 90 is passed over by crypto/tls in TLS 1.3: what is left of it is the end of the connection.

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
	for _, dimension := range []int{byOrigin, byLeg, byConnection, byOften, byTLS, byStage, byFault} {
		rows = merge(rows, dimension)
	}
	fmt.Fprintf(b, "## %s\n\n", subject)
	fmt.Fprint(b, "| fault | stage | TLS | connection | request | how often | binding | cells ",
		"| expected | seen | verdict |\n")
	fmt.Fprintln(b, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		for _, values := range r.dimensions {
			fmt.Fprintf(b, "| %s ", list(values))
		}
		fmt.Fprintf(b, "| %d | %s |\n", r.count, r.rest)
	}
	fmt.Fprintln(b)
}
