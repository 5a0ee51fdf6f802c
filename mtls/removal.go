package mtls

import (
	"context"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/limits"
)

// remove deals with a refusal: see [Cache.RemoveBadCert]. Those who come with one of the same binding share the work.
func (e *entry) remove(ctx context.Context, src Source, r *Refusal) (again bool) {
	again, err := e.removals.Do(ctx, r.Binding.Thumbprint(), limits.Removal, func(ctx context.Context) (bool, error) {
		return e.replace(ctx, src, r), nil
	})
	return err == nil && again
}

// replace adopts a newer binding, or else evicts the one that was refused, or else keeps it.
func (e *entry) replace(ctx context.Context, src Source, r *Refusal) (again bool) {
	bad := r.Binding
	if e.isGone(bad) {
		return true
	}
	if e.mayLook(r) {
		if b := e.newer(ctx, src, bad); b != nil && e.succeed(bad, b) {
			tellAdopted(ctx, src, bad, b)
			return true
		}
	}
	deleted, evicted := e.evict(ctx, src, r)
	if !evicted {
		eventlog.Emit(ctx, eventlog.Event{Step: eventlog.Kept, Alias: src.Alias, Thumbprint: bad.Thumbprint(), Host: r.Host})
		return false
	}
	outcome := "memory and store are clean"
	if err := deleted(); err != nil {
		outcome = "the store could not be cleaned, but the certificate stays unused: " + err.Error()
	}
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.Evicted, Alias: src.Alias, Thumbprint: bad.Thumbprint(), Host: r.Host, Detail: outcome,
	})
	return true
}

// tellAdopted tells of a binding that another process stored and that takes the place of the old one.
func tellAdopted(ctx context.Context, src Source, old, b *Binding) {
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.Adopted, Alias: src.Alias, Thumbprint: b.Thumbprint(), Replaced: old.Thumbprint(),
	})
}

// isGone reports that the binding serves no more. One for which another serves by now gets its tombstone.
func (e *entry) isGone(bad *Binding) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if bad.Evicted() {
		return true
	}
	current := e.current.Load()
	if current == nil || current.is(bad) {
		return false
	}
	e.bury(bad)
	return true
}

// bury marks the binding as evicted, and its certificate as one that must not come back, unless it was issued again.
func (e *entry) bury(bad *Binding) {
	bad.markEvicted()
	if current := e.current.Load(); current == nil || current.is(bad) || current.Thumbprint() != bad.Thumbprint() {
		e.tombstones.add(bad, e.clock.Wall())
	}
}

// lookPause is how often the store is looked into while nothing may be evicted.
const lookPause = time.Second

// mayLook reports whether it is time to look for a newer binding in the store: always before an eviction.
func (e *entry) mayLook(r *Refusal) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Boot()
	if !r.verdict.evictsAlways() && !e.budgetOf(r).available(now) && now < e.nextLook {
		return false
	}
	e.nextLook = now + lookPause
	return true
}

// newer returns a binding that another process has stored since, one that can be used and whose key signs; nil if there
// is none.
func (e *entry) newer(ctx context.Context, src Source, bad *Binding) *Binding {
	b, err := e.read(ctx, src)
	switch {
	case err != nil, b.Certificate.Leaf == nil, b.Thumbprint() == bad.Thumbprint():
		return nil
	case bad.Certificate.Leaf != nil && b.Certificate.Leaf.NotBefore.Before(bad.Certificate.Leaf.NotBefore):
		return nil
	case e.vetStored(ctx, src, b) != nil, b.sign(ctx) != nil:
		return nil
	}
	e.admit(src, b)
	if e.vetIdentity(ctx, src, b) != nil {
		return nil
	}
	return b
}

// succeed puts another binding in the place of the bad one, at no cost.
func (e *entry) succeed(bad, b *Binding) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tombstones.bar(b) {
		return false
	}
	e.bury(bad)
	e.serveNow(b)
	return true
}

// evict forgets the binding and starts its deletion from the store, which comes before whatever the next mint saves.
// Without a unit of the budget it does nothing, unless the verdict evicts always: then the next mint waits for one.
func (e *entry) evict(ctx context.Context, src Source, r *Refusal) (deleted func() error, evicted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Boot()
	switch {
	case e.budgetOf(r).spend(now):
		e.paid = true
	case r.verdict.evictsAlways():
		e.paid, e.unpaid = false, r
	default:
		e.kept = keeping{binding: r.Binding, cause: r, until: now + keptPause}
		return nil, false
	}
	e.bury(r.Binding)
	e.current.Store(nil)
	e.undeleted = true // until deleteAll has done it
	e.next = MintRequest{
		BypassCache:      r.verdict == attestationRefused,
		FreshAttestation: r.verdict == attestationRefused,
	}
	return e.queue.enqueue(ctx, func(ctx context.Context) error { return e.deleteAll(ctx, src) }), true
}
