package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/stage"
)

// progress is the stage that some work is in at the moment: its own, or that of the flight that it waits for.
type progress struct {
	clock *clock.Clock // of the flight

	mu    sync.Mutex
	stage stage.Stage
	since clock.Instant
	inner *progress
}

type progressKey struct{}

// progressOf returns the progress of the flight that runs in this context, nil if none does.
func progressOf(ctx context.Context) *progress {
	p, _ := ctx.Value(progressKey{}).(*progress)
	return p
}

// Enter notes the stage that the work of a flight enters: those who stop waiting for the flight are told.
func Enter(ctx context.Context, s stage.Stage) {
	if p := progressOf(ctx); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stage, p.since = s, p.clock.Now()
	}
}

// Explain returns the error of the work of a flight; what that waited for, if the limit of the flight ended it and the
// error does not say so.
func Explain(ctx context.Context, err error) error {
	p, late := progressOf(ctx), clock.LimitOf(ctx)
	if _, said := errors.AsType[*clock.LimitError](err); err == nil || p == nil || late == nil || said {
		return err
	}
	return p.giveUp(late)
}

// await notes that the work in whose context another flight is waited for is in the stage of that flight; nil: it waits
// no more.
func await(ctx context.Context, inner *progress) {
	if p := progressOf(ctx); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.inner = inner
	}
}

// current returns the innermost stage, and for how long it has lasted.
func (p *progress) current() (s stage.Stage, lasts time.Duration) {
	p.mu.Lock()
	inner, s, since := p.inner, p.stage, p.since
	p.mu.Unlock()
	if inner != nil {
		if s, lasts := inner.current(); s != "" {
			return s, lasts
		}
	}
	return s, p.clock.Since(since)
}

// end returns the error of a context that has ended: with the limit, if one ended it.
func end(ctx context.Context) error {
	if late := clock.LimitOf(ctx); late != nil {
		return fmt.Errorf("%w (%w)", late, ctx.Err())
	}
	return ctx.Err()
}

// giveUp returns the error of a caller who stopped waiting.
func (p *progress) giveUp(cause error) error {
	s, lasts := p.current()
	if s == "" {
		return cause
	}
	return stage.At(s, fmt.Errorf("waiting for %s, for %s: %w", s.Wait(), lasts.Round(100*time.Millisecond), cause))
}
