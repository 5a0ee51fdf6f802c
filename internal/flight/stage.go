package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
)

// stage is what some work waits for at the moment: by name, or by the flight that it waits for.
type stage struct {
	clock *clock.Clock // of the flight

	mu    sync.Mutex
	name  string
	since clock.Instant
	inner *stage
}

type stageKey struct{}

// stageOf returns the stage of the flight that runs in this context, nil if none does.
func stageOf(ctx context.Context) *stage {
	s, _ := ctx.Value(stageKey{}).(*stage)
	return s
}

// Enter notes what the work of a flight goes on to wait for, for example "IMDS to issue a certificate": those who stop waiting for
// the flight are told.
func Enter(ctx context.Context, name string) {
	if s := stageOf(ctx); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.name, s.since = name, s.clock.Now()
	}
}

// Explain returns the error of the work of a flight; what that waited for, if the limit of the flight ended it and the error does not
// say so.
func Explain(ctx context.Context, err error) error {
	s, late := stageOf(ctx), clock.LimitOf(ctx)
	if _, said := errors.AsType[*clock.LimitError](err); err == nil || s == nil || late == nil || said {
		return err
	}
	return s.giveUp(late)
}

// await notes that the work in whose context another flight is waited for is in the stage of that flight.
func await(ctx context.Context, inner *stage) (done func()) {
	s := stageOf(ctx)
	if s == nil {
		return func() {}
	}
	set := func(to *stage) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inner = to
	}
	set(inner)
	return func() { set(nil) }
}

// current returns the innermost stage, and for how long it has lasted.
func (s *stage) current() (name string, lasts time.Duration) {
	s.mu.Lock()
	inner, name, since := s.inner, s.name, s.since
	s.mu.Unlock()
	if inner != nil {
		if name, lasts := inner.current(); name != "" {
			return name, lasts
		}
	}
	return name, s.clock.Since(since)
}

// end returns the error of a context that has ended: with the limit, if one ended it.
func end(ctx context.Context) error {
	if late := clock.LimitOf(ctx); late != nil {
		return fmt.Errorf("%w (%w)", late, ctx.Err())
	}
	return ctx.Err()
}

// giveUp returns the error of a caller who stopped waiting.
func (s *stage) giveUp(cause error) error {
	name, lasts := s.current()
	if name == "" {
		return cause
	}
	return fmt.Errorf("waiting for %s, for %s: %w", name, lasts.Round(100*time.Millisecond), cause)
}
