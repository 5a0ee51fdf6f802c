package mtls

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/azmtls/azmtls/internal/answered"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/stage"
)

// permit returns what the next mint must ask for, or why there is none now. A mint that follows an eviction was paid
// with it. One that follows a mint that was definitely refused, or came to nothing, or the eviction of a dead key,
// costs a unit.
func (e *entry) permit() (MintRequest, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unpaid != nil && !e.paid {
		now := e.clock.Boot()
		if !e.token.spend(now) {
			return MintRequest{}, e.paused(e.token.next-now, e.unpaid)
		}
		e.paid = true
	}
	return e.next, nil
}

// mint makes a new binding and keeps it, in memory and store.
func (e *entry) mint(ctx context.Context, src Source, request MintRequest) (*Binding, error) {
	begin := e.clock.Boot()
	b, err := e.ask(ctx, src, request)
	if err == nil && !request.BypassCache && e.barred(b) {
		eventlog.Emit(ctx, eventlog.Event{Step: eventlog.Reissued, Alias: src.Alias, Thumbprint: b.Thumbprint()})
		request.BypassCache = true
		if other, err := e.ask(ctx, src, request); err == nil {
			b = other
		}
	}
	if err != nil {
		e.failed(ctx, err)
		eventlog.Emit(ctx, eventlog.Event{
			Step: eventlog.MintFailed, Alias: src.Alias, Duration: e.clock.Boot() - begin, Stage: stage.Of(err), Err: err,
		})
		return nil, err
	}
	e.minted(src, b)
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.Minted, Alias: src.Alias, Thumbprint: b.Thumbprint(),
		Duration: e.clock.Boot() - begin, Detail: b.usableUntil(),
	})
	e.save(ctx, src, b)
	return b, nil
}

// ask has the source make a binding, and vets it.
func (e *entry) ask(ctx context.Context, src Source, request MintRequest) (*Binding, error) {
	if src.Mint == nil {
		return nil, errors.New("mtls: the source has no Mint function")
	}
	b, err := src.Mint(answered.With(ctx, &e.imds.answered), request)
	if err == nil {
		err = stage.At(stage.Issue, vetMinted(b))
	}
	return b, flight.Explain(ctx, err)
}

// usableUntil says in words until when the binding is good for tokens.
func (b *Binding) usableUntil() string {
	return "usable until " + b.UsableUntil().UTC().Format(time.RFC3339)
}

// vetMinted returns why a binding that was just minted cannot be used, nil if it can. IMDS's own clock says whether it
// is valid.
func vetMinted(b *Binding) error {
	if b == nil {
		return failure.Definite(errors.New("mtls: the source minted no binding"))
	}
	if err := b.vet(); err != nil {
		return failure.Definite(fmt.Errorf("mtls: the binding that was minted cannot be used: %w", err))
	}
	if b.Issued.IsZero() {
		return nil
	}
	switch {
	case !b.Issued.Before(b.UsableUntil()):
		return failure.Definite(
			fmt.Errorf("mtls: the certificate that was issued had already expired, at %s; the clock of IMDS says %s",
				b.UsableUntil().UTC().Format("2006-01-02T15:04:05Z"), b.Issued.UTC().Format("2006-01-02T15:04:05Z")),
		)
	case b.Issued.Before(b.Certificate.Leaf.NotBefore):
		return failure.Definite(
			fmt.Errorf(
				"mtls: the certificate that was issued is not valid before %s; the clock of IMDS says %s",
				b.Certificate.Leaf.NotBefore.UTC().
					Format("2006-01-02T15:04:05Z"),
				b.Issued.UTC().Format("2006-01-02T15:04:05Z"),
			),
		)
	}
	return nil
}

func (e *entry) barred(b *Binding) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tombstones.bar(b)
}

// minted puts a new binding in memory. One that was evicted before is used all the same, since the alarm may have been
// false, and counted.
func (e *entry) minted(src Source, b *Binding) {
	e.admit(src, b)
	b.admitted.minted = true
	b.admitted.holder.named.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tombstones.bar(b) && !e.paid {
		e.token.charge(e.clock.Boot())
	}
	e.tombstones.lift(b)
	e.paid, e.unpaid, e.next, e.kept = false, nil, MintRequest{}, keeping{}
	e.renewal = renewal{}
	if b.renewalIn() <= 0 { // it was dated back further than it lasts: each one that follows it would be renewed at once
		e.renewal.next = e.clock.Boot() + b.admitted.left()/2
	}
	e.serveNow(b)
}

// failed counts a mint that came to nothing, unless asking again may help.
func (e *entry) failed(ctx context.Context, err error) {
	e.imds.note(e.clock.Boot(), err)
	if ctx.Err() != nil || !failure.IsDefinite(err) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.paid {
		e.token.charge(e.clock.Boot())
	}
	e.paid, e.unpaid = false, err
}
