package mtls

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/azmtls/azmtls/internal/limits"
)

var (
	// errNoUnit is why a renewal that is demanded must wait.
	errNoUnit = errors.New("a renewal costs a unit of the budget, and the last ones went on evictions and mints")
	// errSameCertificate says that IMDS issued no new certificate though it was asked to.
	errSameCertificate = errors.New("mtls: IMDS issued the certificate in use once more, which serves on")
)

// demand replaces the binding in use by a new one, at the cost of a unit. Those who demand it at the same time share
// the work.
func (e *entry) demand(ctx context.Context, src Source) error {
	old := e.current.Load()
	_, err := e.demands.Do(ctx, src.MinStrength, limits.Token, func(ctx context.Context) (*Binding, error) {
		return e.supersede(ctx, src, old)
	})
	if err != nil && err == ctx.Err() {
		err = fmt.Errorf("mtls: waiting for a new binding: %w", err)
	}
	return err
}

// supersede returns a binding that was minted since the old one. A mint or renewal that is under way is joined; if
// that comes to nothing new, there is one more.
func (e *entry) supersede(ctx context.Context, src Source, old *Binding) (*Binding, error) {
	request, err := e.permitDemanded(old != nil && old.usable())
	if err != nil {
		return nil, err
	}
	for {
		var own atomic.Bool
		b, err := e.mints.Do(ctx, src.MinStrength, limits.Mint, func(ctx context.Context) (*Binding, error) {
			own.Store(true)
			return e.mintDemanded(ctx, src, request)
		})
		if own.Load() || ctx.Err() != nil || (err == nil && b.admitted.minted && (old == nil || !b.is(old))) {
			return b, err
		}
	}
}

// mintDemanded mints a binding because somebody demands it.
func (e *entry) mintDemanded(ctx context.Context, src Source, request MintRequest) (*Binding, error) {
	old := e.current.Load()
	if old == nil || !old.usable() {
		return e.mint(ctx, src, request)
	}
	b, err := e.renewed(ctx, src, old, request)
	if err == nil && b == old {
		err = errSameCertificate
	}
	return b, err
}

// permitDemanded takes a unit for a mint that is demanded, unless an eviction left one for it, and returns what it
// must ask for.
func (e *entry) permitDemanded(serves bool) (MintRequest, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Boot()
	if wait, cause := e.imds.left(now); wait > 0 {
		return MintRequest{}, e.paused(wait, cause)
	}
	if !e.paid && !e.token.spend(now) {
		return MintRequest{}, e.paused(e.token.next-now, errNoUnit)
	}
	e.paid = !serves // a mint that comes to nothing would charge for itself
	request := e.next
	request.BypassCache = true
	return request, nil
}
