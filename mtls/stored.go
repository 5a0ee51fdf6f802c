package mtls

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/azmtls/azmtls/internal/endpoint"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/remaining"
)

// isStorable reports whether enough is left of the binding at that time.
func (b *Binding) isStorable(at time.Time) bool {
	return remaining.Vet(b.Certificate.Leaf.NotAfter, b.UsableUntil(), at) == nil
}

// load returns the binding that the store holds, nil if there is none that can be used. Where one was evicted before,
// the key must prove that it signs.
func (e *entry) load(ctx context.Context, src Source) *Binding {
	b, err := e.read(ctx, src)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = e.vetStored(ctx, src, b)
	}
	if err == nil {
		e.admit(src, b)
		err = e.vetIdentity(ctx, src, b)
	}
	if err != nil {
		eventlog.Emit(ctx, eventlog.Event{Step: eventlog.LoadFailed, Alias: src.Alias, Err: err})
		return nil
	}
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.Loaded, Alias: src.Alias, Thumbprint: b.Thumbprint(), Detail: b.usableUntil(),
	})
	return b
}

// read returns a copy of what the store holds: the store may hand the same pointer to others. Its endpoint is in the
// form of those that IMDS gives.
func (e *entry) read(ctx context.Context, src Source) (*Binding, error) {
	found := make(chan Binding, 1)
	err := e.queue.enqueue(ctx, func(ctx context.Context) error {
		stored, err := src.store().Load(ctx, src.Alias)
		if err == nil && (stored == nil || e.barred(stored) && e.clean(ctx, src)) {
			err = ErrNotFound
		}
		if err == nil {
			found <- *stored
		}
		return err
	})()
	if err != nil {
		return nil, err
	}
	b := <-found
	b.admitted, b.Issued = nil, time.Time{}
	if plain, err := endpoint.Check(b.Endpoint); err == nil {
		b.Endpoint = plain
	}
	return &b, nil
}

// vetStored returns why a stored binding cannot be used, nil if it can.
func (e *entry) vetStored(ctx context.Context, src Source, b *Binding) error {
	if err := b.vet(); err != nil {
		return err
	}
	e.mu.Lock()
	barred, any := e.tombstones.bar(b), len(e.tombstones) > 0
	e.mu.Unlock()
	switch {
	case b.Strength() < src.MinStrength:
		return fmt.Errorf("its key has strength %s where %s is demanded", b.Strength(), src.MinStrength)
	case !b.isStorable(e.clock.Wall()):
		return fmt.Errorf("it is usable for less than %s", remaining.Least)
	case barred:
		return errors.New("its certificate was refused and could not be removed from the store")
	case any:
		if err := b.sign(ctx); err != nil {
			return fmt.Errorf("its key does not sign: %w", err)
		}
	}
	return nil
}

// save puts a binding into the store, if it is worth it.
func (e *entry) save(ctx context.Context, src Source, b *Binding) {
	at := b.Issued
	if at.IsZero() {
		at = e.clock.Wall()
	}
	if !b.isStorable(at) {
		return
	}
	err := e.queue.enqueue(ctx, func(ctx context.Context) error {
		for e.clean(ctx, src) { // another eviction may come while the store hangs, and be left to this
		}
		if b.Evicted() { // while this waited for the store
			return nil
		}
		return src.store().Save(ctx, src.Alias, b)
	})()
	if err != nil && !errors.Is(err, ErrKeyNotKept) {
		eventlog.Emit(ctx, eventlog.Event{Step: eventlog.SaveFailed, Alias: src.Alias, Thumbprint: b.Thumbprint(), Err: err})
	}
}

// clean deletes what an eviction could not delete, and reports whether it did. It runs in the store's queue.
func (e *entry) clean(ctx context.Context, src Source) bool {
	e.mu.Lock()
	undeleted := e.undeleted
	e.mu.Unlock()
	return undeleted && e.deleteAll(ctx, src) == nil
}

// deleteAll deletes what the store holds, and notes whether it did. It runs in the store's queue.
func (e *entry) deleteAll(ctx context.Context, src Source) error {
	e.mu.Lock()
	e.undeleted = false // before, since another eviction may come meanwhile
	e.mu.Unlock()
	err := src.store().DeleteAll(ctx, src.Alias)
	if err != nil {
		e.mu.Lock()
		e.undeleted = true
		e.mu.Unlock()
	}
	return err
}
