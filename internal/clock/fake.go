package clock

import (
	"context"
	"sync"
	"time"
)

// Fake is a clock of a test's. Its wall and boot time move only when they are told to, each on its own if need be.
type Fake struct {
	mu     sync.Mutex
	wall   time.Time
	boot   time.Duration
	manual bool
	timers map[*timer]struct{}
	waits  []time.Duration
}

type timer struct {
	at time.Duration
	f  func()
}

// NewFake returns a Fake that stands at the given wall time. A Wait on it takes no real time: it moves the clock on
// itself.
func NewFake(wall time.Time) *Fake {
	return &Fake{wall: wall.Round(0), boot: time.Hour, timers: map[*timer]struct{}{}}
}

// Manual makes a Wait wait until Advance has gone as far.
func (f *Fake) Manual() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manual = true
}

// Clock returns the Clock to inject.
func (f *Fake) Clock() *Clock {
	return &Clock{wall: f.Wall, boot: f.Boot, wait: f.wait, after: f.after}
}

// Wall returns the wall time.
func (f *Fake) Wall() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wall
}

// Boot returns the boot time.
func (f *Fake) Boot() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.boot
}

// Advance lets time pass, on both clocks.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advance(d)
}

func (f *Fake) advance(d time.Duration) {
	f.wall, f.boot = f.wall.Add(d), f.boot+d
	for t := range f.timers {
		if t.at <= f.boot {
			delete(f.timers, t)
			go t.f()
		}
	}
}

// SetWall sets the wall clock, as a correction of it does: boot time does not move.
func (f *Fake) SetWall(wall time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall = wall.Round(0)
}

// Waiting returns how many timers are set, waits included.
func (f *Fake) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.timers)
}

// Next returns how long it is until the next timer fires, false if none is set.
func (f *Fake) Next() (d time.Duration, set bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t := range f.timers {
		if left := t.at - f.boot; !set || left < d {
			d, set = left, true
		}
	}
	return d, set
}

// Waits returns how long each Wait so far was meant to take, in order, and forgets them.
func (f *Fake) Waits() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	waits := f.waits
	f.waits = nil
	return waits
}

func (f *Fake) after(d time.Duration, do func()) (stop func() bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &timer{f.boot + d, do}
	f.timers[t] = struct{}{}
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, set := f.timers[t]
		delete(f.timers, t)
		return set
	}
}

func (f *Fake) wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	f.mu.Lock()
	f.waits = append(f.waits, d)
	if !f.manual {
		defer f.mu.Unlock()
		f.advance(d)
		return nil
	}
	f.mu.Unlock()
	passed := make(chan struct{})
	stop := f.after(d, func() { close(passed) })
	select {
	case <-passed:
		return nil
	case <-ctx.Done():
		stop()
		return ctx.Err()
	}
}

// exceeding is a context whose limit exceeds its deadline, as that of context.WithTimeout does. It tells no deadline:
// package net would compare that with the real time.
type exceeding struct{ context.Context }

// Err returns context.DeadlineExceeded after the limit.
func (c exceeding) Err() error {
	err := c.Context.Err()
	if err != nil && LimitOf(c.Context) != nil {
		return context.DeadlineExceeded
	}
	return err
}
