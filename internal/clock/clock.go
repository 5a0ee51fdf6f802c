// Package clock is the one seam through which time comes: the wall clock, a clock that goes on while the machine
// sleeps, and waiting.
package clock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Clock tells the time. A nil Clock is the real one.
type Clock struct {
	wall  func() time.Time
	boot  func() time.Duration
	wait  func(context.Context, time.Duration) error
	after func(time.Duration, func()) (stop func() bool)
}

// Wall returns the time of day. It carries no monotonic reading: what the machine slept through counts.
func (c *Clock) Wall() time.Time {
	if c == nil {
		return time.Now().Round(0)
	}
	return c.wall().Round(0)
}

// Boot returns how long the machine has been up, sleep included where the system counts that. Only differences mean
// something.
func (c *Clock) Boot() time.Duration {
	if c == nil {
		return sinceBoot()
	}
	return c.boot()
}

// Monotonic returns a time that only goes forward, at a tenth of Boot's cost; it may stand still while the machine
// sleeps.
func (c *Clock) Monotonic() time.Duration {
	if c == nil {
		return sinceStart()
	}
	return c.boot()
}

// Wait returns nil after d, or the context's error if that comes first.
func (c *Clock) Wait(ctx context.Context, d time.Duration) error {
	if c != nil {
		return c.wait(ctx, d)
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// AfterFunc calls f in a goroutine of its own after d, unless stop is called before; stop reports whether it was.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	if c != nil {
		return c.after(d, f)
	}
	return time.AfterFunc(d, f).Stop
}

// LimitError is the cause of a context that a limit ended.
type LimitError struct{ Limit time.Duration }

func (e *LimitError) Error() string { return fmt.Sprintf("no answer within %s", e.Limit) }

// Timeout marks the error as a time-out, as net.Error has it.
func (*LimitError) Timeout() bool { return true }

// WithLimit returns a context that ends after the limit, with a *LimitError as its cause. It can be called off: done
// ends the limit, cancel the context too.
func (c *Clock) WithLimit(ctx context.Context, limit time.Duration) (limited context.Context, done, cancel func()) {
	limited, end := context.WithCancelCause(ctx)
	stop := c.AfterFunc(limit, func() { end(&LimitError{limit}) })
	return limited, func() { stop() }, func() { stop(); end(nil) }
}

// WithTimeout returns a context that ends after the limit as that of context.WithTimeout does, with a *LimitError as
// its cause.
func (c *Clock) WithTimeout(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if c != nil {
		limited, _, cancel := c.WithLimit(ctx, limit)
		return exceeding{limited}, cancel
	}
	return context.WithTimeoutCause(ctx, limit, &LimitError{limit})
}

// LimitOf returns the limit that ended a context, nil if none did.
func LimitOf(ctx context.Context) *LimitError {
	late, _ := errors.AsType[*LimitError](context.Cause(ctx))
	return late
}

// Instant is a point in time on both clocks.
type Instant struct{ wall, boot time.Duration }

// Now returns the present Instant.
func (c *Clock) Now() Instant { return Instant{time.Duration(c.Wall().UnixNano()), c.Boot()} }

// Since returns how long ago an Instant was: the longer of what both clocks say. A wall clock can be set, and not every
// system counts its sleep; neither may make something seem younger than it is.
func (c *Clock) Since(i Instant) time.Duration { return c.Now().since(i) }

func (now Instant) since(i Instant) time.Duration { return max(now.wall-i.wall, now.boot-i.boot) }
