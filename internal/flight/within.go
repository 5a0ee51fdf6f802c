package flight

import (
	"context"
	"fmt"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/stage"
)

// Within returns the result of work that may not heed its context: it is waited for no longer than the limit, by the
// clock of the flight in whose context it runs, nor than ctx lasts. The stage says what is waited for. A panic of the
// work is an error.
func Within[V any](
	ctx context.Context,
	limit time.Duration,
	s stage.Stage,
	work func(context.Context) (V, error),
) (V, error) {
	Enter(ctx, s)
	var c *clock.Clock
	if p := progressOf(ctx); p != nil {
		c = p.clock
	}
	ctx, cancel := c.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		value V
		err   error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errBrokenOff}
		defer func() { done <- r }()
		r.value, r.err = guarded(ctx, work)
	}()
	select {
	case r := <-done:
		if r.err == nil || clock.LimitOf(ctx) == nil { // whose end the work may have put in words of its own
			return r.value, r.err
		}
	case <-ctx.Done():
	}
	var none V
	return none, fmt.Errorf("waiting for %s: %w", s.Wait(), context.Cause(ctx))
}
