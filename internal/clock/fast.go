package clock

import (
	"sync/atomic"
	"time"
)

// Fast is a Clock for those who ask very often how long ago an Instant was. Reading a clock takes longer than all else
// that they do, so a reading is good until a timer takes it back, a tenth of a second later; who asks then reads anew.
// When nobody asks, no timer is set.
type Fast struct {
	*Clock
	latest atomic.Pointer[Instant]
}

// goodFor is how long a reading is good. It stands still while the machine sleeps, so the first tenth of a second after
// that may be told the time before it.
const goodFor = 100 * time.Millisecond

// Since returns how long ago an Instant was, as [Clock.Since] does.
func (f *Fast) Since(i Instant) time.Duration {
	now := f.latest.Load()
	if now == nil {
		now = f.read()
	}
	return now.since(i)
}

// read looks at the clocks. A clock of a test's moves in leaps: it is read every time.
func (f *Fast) read() *Instant {
	now := f.Now()
	if f.Clock == nil && f.latest.CompareAndSwap(nil, &now) {
		time.AfterFunc(goodFor, func() { f.latest.Store(nil) })
	}
	return &now
}
