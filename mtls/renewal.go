package mtls

import (
	"context"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/internal/stage"
)

// renewal is when the binding in memory is renewed. Times are the clock's boot time.
type renewal struct {
	next     time.Duration // not before; 0: as soon as it is due
	failures int
}

const (
	firstRenewalPause = time.Minute
	lastRenewalPause  = time.Hour
)

// renewalIn returns how long it is until half of the binding's life is over, give or take a tenth, so that a fleet
// spreads.
func (b *Binding) renewalIn() time.Duration {
	whole := b.UsableUntil().Sub(b.Certificate.Leaf.NotBefore)
	return b.admitted.left() - time.Duration(float64(whole)*b.admitted.renewAt)
}

// renew starts the renewal of a binding in the background, when it is due. The binding serves on until another has
// come, and if none comes. It costs nothing of the budget: it has delays of its own. A caller who finds the binding
// at its end joins it.
func (e *entry) renew(ctx context.Context, src Source, b *Binding) {
	if b.renewalIn() > 0 {
		return
	}
	e.mu.Lock()
	now := e.clock.Boot()
	pause, _ := e.imds.left(now)
	wait := now < e.renewal.next || pause > 0
	if !wait {
		e.renewal.next = now + min(firstRenewalPause<<min(e.renewal.failures, 10), lastRenewalPause)
		e.renewal.failures++
	}
	e.mu.Unlock()
	if wait {
		return
	}
	e.mints.Start(ctx, src.MinStrength, limits.Mint, func(ctx context.Context) (*Binding, error) {
		return e.replaceOld(ctx, src, b)
	})
}

// replaceOld puts another binding in the place of one that gets old: a newer one of another process, or a new one.
func (e *entry) replaceOld(ctx context.Context, src Source, old *Binding) (*Binding, error) {
	if b := e.newer(ctx, src, old); b != nil && b.admitted.left() > old.admitted.left() && e.adopt(b) {
		tellAdopted(ctx, src, old, b)
		return b, nil
	}
	b, err := e.renewed(ctx, src, old, MintRequest{})
	if err != nil && old.usable() && !old.Evicted() {
		return old, nil
	}
	return b, err
}

// renewed mints a binding in the place of another one, which is what it returns if IMDS issued the same certificate.
func (e *entry) renewed(ctx context.Context, src Source, old *Binding, request MintRequest) (*Binding, error) {
	begin := e.clock.Boot()
	b, err := e.ask(ctx, src, request)
	switch {
	case err != nil:
		e.imds.note(e.clock.Boot(), err)
		eventlog.Emit(ctx, eventlog.Event{
			Step: eventlog.RenewalFailed, Alias: src.Alias, Thumbprint: old.Thumbprint(),
			Duration: e.clock.Boot() - begin, Stage: stage.Of(err), Err: err,
		})
		return nil, err
	case b.Thumbprint() == old.Thumbprint():
		e.again(old)
		return old, nil
	}
	e.minted(src, b)
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.Renewed, Alias: src.Alias, Thumbprint: b.Thumbprint(), Replaced: old.Thumbprint(),
		Duration: e.clock.Boot() - begin, Detail: b.usableUntil(),
	})
	e.save(ctx, src, b)
	return b, nil
}

// again notes that IMDS issued the old certificate once more, which is no failure: the next try comes at half of what
// remains.
func (e *entry) again(old *Binding) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewal = renewal{next: e.clock.Boot() + old.admitted.left()/2}
}
