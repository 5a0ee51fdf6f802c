// Package eventlog tells what happens: to azcore's log, that is to whoever set a listener with
// azcore/log.SetListener, and to the observer of the credential on whose behalf it happens.
package eventlog

import (
	"context"
	"fmt"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/internal/clock"
)

const (
	// Authentication is of tokens that were obtained, and why some were not.
	Authentication log.Event = "azmtls.Authentication"
	// Binding is of the life of bindings: loaded, minted, renewed.
	Binding log.Event = "azmtls.Binding"
	// Recovery is of recovery: what was refused and why, what was evicted, what was tried again.
	Recovery log.Event = "azmtls.Recovery"
)

// Observer is who hears of a credential's events.
type Observer struct {
	// Clock is the credential's.
	Clock *clock.Clock
	// Record gets an event at once, in the middle of the work. It must be quick and ask for nothing.
	Record func(Event)
	// Notify gets it when the work has ended that others wait for, and may ask for what that work is for. Nil: nobody
	// does.
	Notify func(Event)
}

// ObserverKey is the key under which a context has its *Observer.
type ObserverKey struct{}

// Observe returns a context for work that the observer hears of.
func Observe(ctx context.Context, o *Observer) context.Context {
	return context.WithValue(ctx, ObserverKey{}, o)
}

// Carry returns the context for shared work, with the observer of the one who began it.
func Carry(own, from context.Context) context.Context {
	if o := observerOf(from); o != nil {
		return Observe(own, o)
	}
	return own
}

func observerOf(ctx context.Context) *Observer {
	o, _ := ctx.Value(ObserverKey{}).(*Observer)
	return o
}

// Writef tells of something in words alone: see [Emit].
func Writef(ctx context.Context, kind log.Event, format string, args ...any) {
	if observerOf(ctx).listens(kind) {
		Emit(ctx, Event{Step: Note, Kind: kind, Detail: fmt.Sprintf(format, args...)})
	}
}

// Emit tells of an event: at once, or with the context of deferred work when that has ended. It masks what identifies
// a binding, an identity or a tenant; tokens, keys and certificate requests never go in.
func Emit(ctx context.Context, e Event) {
	if e.Step != Note {
		e.Kind = steps[e.Step].kind
	}
	o := observerOf(ctx)
	if o != nil {
		e.Time = o.Clock.Wall()
	}
	e.Alias, e.Thumbprint, e.Replaced = Mask(e.Alias), Mask(e.Thumbprint), Mask(e.Replaced)
	e.Err = maskErr(e.Err)
	if o != nil && o.Record != nil {
		o.Record(e)
	}
	if !o.listens(e.Kind) {
		return
	}
	if d, ok := ctx.Value(deferredKey{}).(*Deferred); ok && d.add(told{e, o}) {
		return
	}
	told{e, o}.tell()
}

// listens reports whether somebody hears of an event.
func (o *Observer) listens(kind log.Event) bool {
	return azcoreShould(kind) || (o != nil && o.Notify != nil)
}

// told is an event, and who hears of it.
type told struct {
	event    Event
	observer *Observer
}

func (t told) tell() {
	if azcoreShould(t.event.Kind) {
		azcoreWrite(t.event.Kind, t.event.String())
	}
	if t.observer == nil || t.observer.Notify == nil {
		return
	}
	defer func() { // the caller's code may run in a goroutine of ours
		if r := recover(); r != nil {
			azcoreWrite(t.event.Kind, fmt.Sprintf("the observer panicked: %v", r))
		}
	}()
	t.observer.Notify(t.event)
}

// Deferred holds back the events of some work that many wait for, lest a listener who waits for it too holds it up.
// The zero value is ready.
type Deferred struct {
	mu     sync.Mutex
	events []told
	over   bool
}

type deferredKey struct{}

// Defer returns a context for the work.
func Defer(ctx context.Context, d *Deferred) context.Context {
	return context.WithValue(ctx, deferredKey{}, d)
}

// Pass tells what was held back, in order, or hands it on with the context of other deferred work. What comes later
// is told at once.
func (d *Deferred) Pass(ctx context.Context) {
	d.mu.Lock()
	events := d.events
	d.events, d.over = nil, true
	d.mu.Unlock()
	outer, _ := ctx.Value(deferredKey{}).(*Deferred)
	for _, e := range events {
		if outer == nil || !outer.add(e) {
			e.tell()
		}
	}
}

func (d *Deferred) add(e told) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	d.events = append(d.events, e)
	return true
}
