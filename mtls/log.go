package mtls

import (
	"fmt"
	"strings"
	_ "unsafe" // for go:linkname

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
)

const (
	// EventBinding logs the life of bindings: loaded, minted, saved, rotated.
	EventBinding log.Event = "azmtls.Binding"
	// EventRecovery logs recovery: what was rejected and why, what was evicted, what was tried again.
	EventRecovery log.Event = "azmtls.Recovery"
)

// Logf writes an event to azcore's log, for stores and key providers as for this package: whoever set a listener with
// azcore/log.SetListener gets it. Identifiers and thumbprints go through [Mask]; tokens, keys and certificate requests never
// go in.
func Logf(event log.Event, format string, args ...any) {
	if azcoreShould(event) {
		azcoreWrite(event, fmt.Sprintf(format, args...))
	}
}

// azcore exports the listening half of its log, not the writing half, which lives in a package that only Microsoft's modules
// may import. Linking to its two functions is the one way to reach the listener that the user has set; should they ever
// move, the link step fails and says so.

//go:linkname azcoreShould github.com/Azure/azure-sdk-for-go/sdk/internal/log.Should
func azcoreShould(event log.Event) bool

//go:linkname azcoreWrite github.com/Azure/azure-sdk-for-go/sdk/internal/log.Write
func azcoreWrite(event log.Event, message string)

// Mask shortens an alias, identifier or thumbprint so that log lines can be told apart without disclosing it.
func Mask(s string) string {
	const shown = 6
	id, suffix := s, ""
	if i := strings.LastIndex(s, "#att="); i >= 0 {
		id, suffix = s[:i], s[i:]
	}
	if runes := []rune(id); len(runes) > shown {
		id = string(runes[:shown]) + "…"
	}
	return id + suffix
}
