package clock

import (
	"sync/atomic"
	"time"
)

// Fast is a Clock for those who ask very often how long ago an Instant was. It looks at the wall and the boot clock once a second
// of monotonic time, and adds what passed since on the monotonic one.
type Fast struct {
	*Clock
	latest atomic.Pointer[reading]
}

type reading struct {
	Instant
	monotonic time.Duration
}

// lookPause is how long a reading is good for.
const lookPause = time.Second

// Since returns how long ago an Instant was, as [Clock.Since] does.
func (f *Fast) Since(i Instant) time.Duration {
	now := f.Monotonic()
	r := f.latest.Load()
	if r == nil || now-r.monotonic >= lookPause || now < r.monotonic {
		r = &reading{f.Now(), now}
		f.latest.Store(r)
	}
	return max(r.wall.Sub(i.wall), r.boot-i.boot) + now - r.monotonic
}
