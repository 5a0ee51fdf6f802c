package mtls

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/hostport"
	"github.com/azmtls/azmtls/internal/limits"
)

// entry is what a Cache knows of one identity: the binding that serves it, and what may happen to that. mu guards the
// fields below it and is never held during I/O.
type entry struct {
	clock     *clock.Clock
	current   atomic.Pointer[Binding]
	mints     flight.Group[BindingStrength, *Binding] // by what is demanded
	demands   flight.Group[BindingStrength, *Binding] // the same
	removals  flight.Group[string, bool]              // by thumbprint
	questions flight.Group[*holder, bool]             // to the metadata
	queue     storeQueue
	imds      *imds

	mu         sync.Mutex
	renewal    renewal
	tombstones tombstones
	undeleted  bool        // the store could not be cleaned
	next       MintRequest // of the next mint
	token      budget      // on the word of the token endpoint and of IMDS
	resources  budget      // on that of all resources
	paid       bool        // the next mint has its unit
	unpaid     error       // why the next mint must wait for a unit; nil if it needs none
	kept       keeping
	holder     *holder       // of the binding in memory
	nextLook   time.Duration // when the store may be looked into for a newer binding though nothing may be evicted
	nextAsk    time.Duration // when the metadata may be asked on Entra's word
	nextCheck  time.Duration // when it may be asked of a stored binding
}

// keeping is a binding that was refused and kept, since there was no unit to evict it.
type keeping struct {
	binding *Binding
	cause   error
	until   time.Duration // when it may be tried next
}

func newEntry(c *clock.Clock, imds *imds) *entry {
	e := &entry{
		clock: c, imds: imds, tombstones: tombstones{}, token: budget{cap: tokenCap}, resources: budget{cap: resourceCap},
	}
	e.mints.Clock, e.demands.Clock, e.removals.Clock, e.questions.Clock = c, c, c, c
	return e
}

// get returns the binding for the source.
func (e *entry) get(ctx context.Context, src Source) (*Binding, error) {
	if b, err := e.serve(src.MinStrength); b != nil || err != nil {
		if b != nil && !src.Foreground {
			e.check(ctx, src, b)
			e.renew(ctx, src, b)
		}
		return b, err
	}
	b, err := e.mints.Do(ctx, src.MinStrength, limits.Mint, func(ctx context.Context) (*Binding, error) {
		return e.obtain(ctx, src)
	})
	if err == nil && b.Evicted() { // by another caller, who was quicker than this one
		return e.mints.Do(ctx, src.MinStrength, limits.Mint, func(ctx context.Context) (*Binding, error) {
			return e.obtain(ctx, src)
		})
	}
	if err != nil && err == ctx.Err() {
		err = fmt.Errorf("mtls: waiting for a binding: %w", err)
	}
	return b, err
}

// serve returns the binding in memory, or why none is to be had now. It returns nothing if one must be obtained.
func (e *entry) serve(demanded BindingStrength) (*Binding, error) {
	b := e.current.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Boot()
	switch {
	case b != nil && b.usable() && b.Strength() >= demanded:
		return e.paced(b, now)
	case e.unpaid != nil && !e.paid && !e.token.available(now): // one that is paid may be under way: it is waited for
		return nil, e.paused(e.token.next-now, e.unpaid)
	}
	if wait, cause := e.imds.left(now); wait > 0 {
		return nil, e.paused(wait, cause)
	}
	return nil, nil
}

// keptPause is how often a binding is tried that was refused, kept, and accepted by nobody.
const keptPause = time.Second

// paced returns the binding, or the cause why it is not tried now.
func (e *entry) paced(b *Binding, now time.Duration) (*Binding, error) {
	if e.kept.binding == nil || !e.kept.binding.is(b) || b.wasAccepted() {
		return b, nil
	}
	if now < e.kept.until {
		return nil, e.paused(e.kept.until-now, e.kept.cause)
	}
	e.kept.until = now + keptPause
	return b, nil
}

func (e *entry) paused(wait time.Duration, cause error) error {
	return &pausedError{until: e.clock.Wall().Add(wait), cause: cause}
}

// obtain gets a binding that memory does not have: from the store, where another process may have put one by now, or a
// new one.
func (e *entry) obtain(ctx context.Context, src Source) (*Binding, error) {
	if b, err := e.serve(src.MinStrength); b != nil || err != nil {
		return b, err // it came between this caller's look and its turn
	}
	if b := e.load(ctx, src); b != nil && e.adopt(b) {
		return b, nil
	}
	request, err := e.permit()
	if err != nil {
		return nil, err
	}
	return e.mint(ctx, src, request)
}

// adopt puts a binding from the store in memory, unless it was evicted meanwhile.
func (e *entry) adopt(b *Binding) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tombstones.bar(b) {
		return false
	}
	e.unpaid, e.renewal = nil, renewal{}
	e.serveNow(b)
	return true
}

// budgetOf returns the budget that a refusal draws on. That a key is dead is no peer's word.
func (e *entry) budgetOf(r *Refusal) *budget {
	if r.verdict == keyDead || hostport.Canonical(r.Host) == r.Binding.tokenHost() {
		return &e.token
	}
	return &e.resources
}
