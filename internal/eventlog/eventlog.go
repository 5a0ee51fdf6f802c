// Package eventlog writes to azcore's log: whoever set a listener with azcore/log.SetListener gets it.
package eventlog

import (
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
)

const (
	// Authentication is of tokens that were obtained, and why some were not.
	Authentication log.Event = "azmtls.Authentication"
	// Binding is of the life of bindings: loaded, minted, saved, rotated.
	Binding log.Event = "azmtls.Binding"
	// Recovery is of recovery: what was refused and why, what was evicted, what was tried again.
	Recovery log.Event = "azmtls.Recovery"
)

// Writef writes an event. Identifiers and thumbprints go through [Mask]; tokens, keys and certificate requests never go in.
func Writef(event log.Event, format string, args ...any) {
	if azcoreShould(event) {
		azcoreWrite(event, fmt.Sprintf(format, args...))
	}
}

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
