package mtls

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// Source says which binding is wanted and how to get it.
type Source struct {
	// Alias names the identity in memory and store, for example "system_assigned_managed_identity#att=0".
	Alias string
	// Endpoint is the base URL of the IMDS that issues the binding.
	Endpoint string
	// Keys provides the key of the binding. The Cache only compares it; Mint is what asks it.
	Keys KeyProvider
	// MinStrength is the weakest key of a binding from the store; weaker ones are left there for others. Mint sees to its own.
	MinStrength BindingStrength
	// Store keeps the binding beyond the process. Nil is NoStore{}.
	Store Store
	// Mint makes a new binding.
	Mint func(context.Context) (*Binding, error)
}

// Cache keeps bindings in memory over the store of each source. Sources share an entry only when alias, endpoint, key
// provider, strength and store are the same; a provider or store whose type does not allow == is told apart by its type alone, so
// give such a one a Cache of its own. The zero value is ready, and safe for concurrent use.
type Cache struct {
	// Time returns the current time. Nil is time.Now. It must be set before first use.
	Time func() time.Time

	entries sync.Map // identity -> *entry
}

// identity is what sources must have in common to share a binding.
type identity struct {
	alias, endpoint string
	keys, store     any
	minStrength     BindingStrength
}

// GetOrMint returns the binding of the source: from memory, else from the store, else a new one. Concurrent callers share
// one mint and its result; when the caller who mints gives up, the next one takes over. Its errors are those of
// Mint, ctx.Err() for a caller that gave up waiting, and *[BackoffError] while fresh bindings keep being refused.
func (c *Cache) GetOrMint(ctx context.Context, src Source) (*Binding, error) {
	e := c.entry(src)
	if b := e.usable(c.now()); b != nil {
		return b, nil
	}
	before := e.lastMint()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("mtls: waiting for a binding: %w", ctx.Err())
	}
	if b := e.usable(c.now()); b != nil {
		return b, nil
	}
	if last := e.lastMint(); last != before && (last.err != nil || !last.binding.Evicted()) {
		return last.binding, last.err // it was made while this caller waited
	}
	if b := c.load(ctx, e, src); b != nil && e.keep(b) {
		return b, nil
	}
	if err := e.delay(tokenEndpoint, c.now()); err != nil {
		return nil, err
	}
	return c.mint(ctx, e, src)
}

// load returns the binding that the store holds, nil if there is none that can be used.
func (c *Cache) load(ctx context.Context, e *entry, src Source) *Binding {
	b, err := e.load(ctx, src)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = c.refuse(e, src, b)
	}
	if err != nil {
		Logf(EventBinding, "no binding of %s taken from the store: %v", Mask(src.Alias), err)
		return nil
	}
	Logf(EventBinding, "loaded binding %s of %s from the store", Mask(b.Thumbprint()), Mask(src.Alias))
	return b
}

// refuse reports why a stored binding must not be used, nil if it may.
func (c *Cache) refuse(e *entry, src Source, b *Binding) error {
	switch err := b.complete(); {
	case err != nil:
		return err
	case b.Strength() < src.MinStrength:
		return fmt.Errorf("its key has strength %s where %s is demanded", b.Strength(), src.MinStrength)
	case !b.Cacheable(c.now()):
		return fmt.Errorf("it is usable for less than %s", minRemaining)
	case e.isRejected(b.Thumbprint()):
		return errors.New("its certificate was rejected and could not be removed from the store")
	}
	return nil
}

// mint makes a new binding and keeps it, in memory and store, unless too little is left of it.
func (c *Cache) mint(ctx context.Context, e *entry, src Source) (*Binding, error) {
	if src.Mint == nil {
		return nil, errors.New("mtls: the source has no Mint function")
	}
	b, err := src.Mint(ctx)
	if err == nil {
		err = c.inspect(e, b)
	}
	if err != nil {
		if ctx.Err() == nil { // that this caller gave up is no news for the others
			e.setLastMint(&mintResult{err: err})
		}
		return nil, err
	}
	b.admit(true)
	e.setLastMint(&mintResult{binding: b})
	Logf(EventBinding, "minted binding %s of %s, usable until %s", Mask(b.Thumbprint()), Mask(src.Alias), b.UsableUntil().UTC().Format(time.RFC3339))
	if !b.Cacheable(c.now()) {
		Logf(EventBinding, "binding %s is valid for less than %s, so it serves this call only", Mask(b.Thumbprint()), minRemaining)
		return b, nil
	}
	e.keep(b)
	if err := e.save(ctx, src, b); err != nil {
		Logf(EventBinding, "saving binding %s of %s failed, it lives in memory only: %v", Mask(b.Thumbprint()), Mask(src.Alias), err)
	}
	return b, nil
}

// inspect reports why a binding that was just minted must not be used, nil if it may.
func (c *Cache) inspect(e *entry, b *Binding) error {
	switch {
	case b == nil:
		return errors.New("mtls: the source minted no binding")
	case b.der() == nil || b.Certificate.Leaf == nil:
		return errors.New("mtls: the source minted a binding without a certificate")
	case b.expired(c.now()):
		return fmt.Errorf("mtls: the certificate that was issued had already expired, at %s: is the clock of this machine right?", b.UsableUntil().UTC().Format(time.RFC3339))
	case e.isRejected(b.Thumbprint()):
		err := errors.New("mtls: the certificate that was issued is one that was rejected before")
		e.count(refusal{cause: err}, c.now())
		return err
	}
	return nil
}

// RemoveBadCert evicts a binding that was rejected: from memory if it is still the one there (compared by thumbprint) and,
// from the store, every entry of the alias. The thumbprint is remembered, so that a store that could not be
// cleaned never brings it back; a second call for it does nothing, and so cannot delete the binding that came
// after. It never fails: what goes wrong is logged. A store that does not answer is given up on after two seconds.
func (c *Cache) RemoveBadCert(ctx context.Context, src Source, bad *Binding) {
	if bad != nil && bad.der() != nil {
		c.evict(ctx, src, bad, nil)
	}
}

// Refused records that a binding was rejected and evicts it as RemoveBadCert does. The resource is the host that rejected
// it, empty for the token endpoint. From the second fresh binding in a row that the token endpoint refuses, GetOrMint
// mints no more until a delay has passed (1 s, doubling to 5 min). A resource that does so gets nothing more evicted for
// as long: then Refused returns false, and a retry is useless. Other resources go on with the binding.
func (c *Cache) Refused(ctx context.Context, src Source, rejection *BindingRejectedError, resource string) bool {
	if resource != tokenEndpoint {
		if err := c.entry(src).delay(resource, c.now()); err != nil {
			Logf(EventRecovery, "binding %s of %s is kept: %v", Mask(rejection.Binding.Thumbprint()), Mask(src.Alias), err)
			return false
		}
	}
	c.evict(ctx, src, rejection.Binding, &refusal{resource: resource, cause: rejection})
	return true
}

func (c *Cache) evict(ctx context.Context, src Source, bad *Binding, why *refusal) {
	deleted, first := c.entry(src).evict(ctx, src, bad, why, c.now())
	if !first {
		return
	}
	outcome := "memory and store are clean"
	if err := deleted(); err != nil {
		outcome = fmt.Sprintf("the store could not be cleaned, but the certificate stays unused: %v", err)
	}
	Logf(EventRecovery, "evicted binding %s of %s: %s", Mask(bad.Thumbprint()), Mask(src.Alias), outcome)
}

// Accepted records that a binding did its work: a token was obtained with it, or the resource (its host) answered. It ends
// the delays that refusals of this peer had caused.
func (c *Cache) Accepted(src Source, b *Binding, resource string) {
	if resource == tokenEndpoint && b.admitted != nil {
		b.admitted.accepted.Store(true)
	}
	c.entry(src).forgetRefusals(resource)
}

func (c *Cache) entry(src Source) *entry {
	id := identity{alias: src.Alias, endpoint: src.Endpoint, keys: mapKey(src.Keys), store: mapKey(src.store()), minStrength: src.MinStrength}
	if e, ok := c.entries.Load(id); ok {
		return e.(*entry)
	}
	e, _ := c.entries.LoadOrStore(id, newEntry())
	return e.(*entry)
}

func (c *Cache) now() time.Time {
	if c.Time != nil {
		return c.Time()
	}
	return time.Now()
}

func (s Source) store() Store {
	if s.Store == nil {
		return NoStore{}
	}
	return s.Store
}

// mapKey returns what tells v from others as a map key: v itself, or its type where == on it would panic.
func mapKey(v any) any {
	if v == nil || reflect.ValueOf(v).Comparable() {
		return v
	}
	return reflect.TypeOf(v)
}
