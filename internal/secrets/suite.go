package secrets

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Run runs the tests of a package and returns the exit code of their program. All that azcore's log gets meanwhile is
// searched; tests that listen themselves do so by Listen. It fails when anything was found.
func (s *Search) Run(m *testing.M, suite string) int {
	log.SetListener(s.line)
	code := m.Run()
	for _, finding := range s.Found() {
		fmt.Fprintln(os.Stderr, suite, "emitted", finding)
		code = 1
	}
	if os.Getenv("AZMTLS_RELIABILITY") != "" {
		text, _ := json.Marshal(s.Report(suite))
		fmt.Printf("RELIABILITY %s\n", text)
	}
	return code
}

// Listen is azcore's log.SetListener, until the test ends. The search goes on.
func (s *Search) Listen(t testing.TB, listener func(log.Event, string)) {
	log.SetListener(func(event log.Event, line string) {
		s.line(event, line)
		listener(event, line)
	})
	t.Cleanup(func() { log.SetListener(s.line) })
}

// line searches a line of the log, but for those that azidentity writes: they name the identity that it was given.
func (s *Search) line(event log.Event, line string) {
	if event != azidentity.EventAuthentication {
		s.Text(string(event) + ": " + line)
	}
}
