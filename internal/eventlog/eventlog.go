// Package eventlog writes to azcore's log: whoever set a listener with azcore/log.SetListener gets it.
package eventlog

import (
	"context"
	"fmt"
	"strings"
	"sync"

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

// Writef writes an event: at once, or with the context of deferred work when that has ended. Identifiers and thumbprints go
// through [Mask]; tokens, keys and certificate requests never go in.
func Writef(ctx context.Context, event log.Event, format string, args ...any) {
	if !azcoreShould(event) {
		return
	}
	message := fmt.Sprintf(format, args...)
	if d, ok := ctx.Value(deferredKey{}).(*Deferred); ok && d.add(event, message) {
		return
	}
	azcoreWrite(event, message)
}

// Deferred holds back the events of some work that many wait for, lest a listener who waits for it too holds it up. The zero value is
// ready.
type Deferred struct {
	mu     sync.Mutex
	events []event
	over   bool
}

type event struct {
	kind    log.Event
	message string
}

type deferredKey struct{}

// Defer returns a context for the work.
func Defer(ctx context.Context, d *Deferred) context.Context {
	return context.WithValue(ctx, deferredKey{}, d)
}

// Pass writes what was held back, in order, or hands it on with the context of other deferred work. What comes later is written
// at once.
func (d *Deferred) Pass(ctx context.Context) {
	d.mu.Lock()
	events := d.events
	d.events, d.over = nil, true
	d.mu.Unlock()
	outer, _ := ctx.Value(deferredKey{}).(*Deferred)
	for _, e := range events {
		if outer == nil || !outer.add(e.kind, e.message) {
			azcoreWrite(e.kind, e.message)
		}
	}
}

func (d *Deferred) add(kind log.Event, message string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	d.events = append(d.events, event{kind, message})
	return true
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
