package azmtls_test

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// The fault matrix: whatever can go wrong at the token endpoint and at a resource, on every kind of connection, at
// every kind of request. What each cell must come to is worked out from the design alone (matrix_oracle_test.go), not
// from the code under test.

// evidenceFile is the matrix as it was last found, in groups.
const evidenceFile = "docs/evidence.md"

var update = flag.Bool("update", false, "write the pages of docs anew")

// connection is what the fault meets.
type connection string

const (
	fresh    connection = "fresh"           // a new connection to a host that has never accepted the binding
	reused   connection = "reused"          // one that has served a request
	answered connection = "answered before" // a new one to a host that accepted the binding less than 5 minutes ago
)

// leg is the request that the fault meets.
type leg string

const (
	legToken leg = "token"
	legGET   leg = "GET"
	legPUT   leg = "PUT"
	legPOST  leg = "POST"
)

// often is how often the fault strikes.
type often string

const (
	once   often = "once"
	always often = "always" // whenever this certificate is presented; if the fault cannot tell certificates, always
	every  often = "every certificate"
)

// origin is where the binding comes from.
type origin string

const (
	stored origin = "stored" // an earlier process left it in the store
	memory origin = "memory" // this process minted it
)

var (
	tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}
	connections = []connection{fresh, reused, answered}
	resources   = []leg{legGET, legPUT, legPOST}
	legs        = append([]leg{legToken}, resources...)
	oftens      = []often{once, always, every}
	origins     = []origin{stored, memory}
)

// cell is one cell of the matrix, and what came of it.
type cell struct {
	fault  *fault
	tls    uint16
	conn   connection
	leg    leg
	often  often
	origin origin

	expected   [][]outcome // of its calls; any of them is right
	seen       []outcome
	complaints string // what is wrong besides
	verdict    string
}

func (c cell) String() string {
	return fmt.Sprintf("%s %s / %s / %s / %s / %s / %s",
		c.fault.name, c.fault.at, tls.VersionName(c.tls), c.conn, c.leg, c.often, c.origin)
}

// makesNoSense says why a combination is left out, "" if it is not.
func (c cell) makesNoSense() string {
	switch {
	case c.fault.perConnection && c.conn == reused:
		return "what happens while a connection is opened does not happen to an open one"
	case c.fault.legs != nil && !slices.Contains(c.fault.legs, c.leg):
		return "Entra's words come from Entra, a resource's from a resource, and only PUT and POST have a body here"
	case c.often == every && (c.fault.blind || !c.fault.means(c).mayEvict()):
		return "a fault that is blind for certificates strikes every one anyway; one that evicts nothing meets no other"
	case c.fault.omit != nil:
		return c.fault.omit(c)
	}
	return ""
}

// cells returns the cells of a fault.
func (f *fault) cells() (cells []*cell) {
	for _, version := range tlsVersions {
		for _, conn := range connections {
			for _, leg := range legs {
				for _, often := range oftens {
					for _, origin := range origins {
						c := cell{fault: f, tls: version, conn: conn, leg: leg, often: often, origin: origin}
						if c.makesNoSense() == "" {
							cells = append(cells, &c)
						}
					}
				}
			}
		}
	}
	return cells
}

// allFaults returns the faults, subject by subject.
func allFaults() []*fault {
	return slices.Concat(alertFaults(), lossFaults(), keyFaults(), resourceFaults(), entraFaults(), answerFaults(),
		serverFaults(), callerFaults())
}

func TestMatrix(t *testing.T) {
	var mu sync.Mutex
	var cells []*cell
	faults, all := allFaults(), 0
	for _, f := range faults {
		all += len(f.cells())
	}
	require.GreaterOrEqual(t, all, 1500)
	t.Run("faults", func(t *testing.T) {
		for _, f := range faults {
			t.Run(fmt.Sprintf("%s/%s %s", f.subject, f.name, f.at), func(t *testing.T) {
				t.Parallel()
				for i, c := range f.cells() {
					if i%stride != 0 {
						continue
					}
					c.expected = oracle(*c)
					runCell(t, c)
					if c.judge(); c.verdict != right {
						t.Errorf("%s: %s\nexpected: %s\nseen:     %s", c.verdict, c, c.expectation(), c.sight())
					}
					mu.Lock()
					cells = append(cells, c)
					mu.Unlock()
				}
			})
		}
	})
	if testing.Verbose() {
		fmt.Println(report(faults, cells, true))
	}
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		deviations := 0
		for _, c := range cells {
			if c.verdict != right {
				deviations++
			}
		}
		t.Logf(`RELIABILITY {"name":"matrix","faults":%d,"cells":%d,"deviations":%d}`, len(faults), len(cells), deviations)
	}
	if len(cells) < all || t.Failed() && !*update {
		return // a part of the matrix was asked for, or it has said what is wrong
	}
	table := report(faults, cells, false)
	if *update {
		require.NoError(t, os.MkdirAll("docs", 0o755))
		require.NoError(t, os.WriteFile(evidenceFile, []byte(table), 0o644))
	}
	committed, err := os.ReadFile(evidenceFile)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(committed), "\r\n", "\n"), table,
		"%s is stale: run go test -run Matrix -update .", evidenceFile)
}
