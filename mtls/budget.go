package mtls

import (
	"fmt"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
)

// budget says when a binding may be evicted and minted again. The first unit is free, the next comes a second later,
// then 2, 4 … up to the cap. For every cap that passes without one spent, the delay goes back by a step; success gives
// nothing back, since a peer that refuses every second request succeeds half of the time. Times are the clock's boot
// time. It must have a cap.
type budget struct {
	cap   time.Duration
	level int           // how often the delay has doubled, and one
	last  time.Duration // when the latest unit was spent
	next  time.Duration // when the next one comes
}

const (
	firstDelay = time.Second

	// tokenCap is the longest delay on the word of the token endpoint and of IMDS.
	tokenCap = 5 * time.Minute
	// resourceCap is the one on the word of resources, all of them together: no resource can spend what Entra's word
	// needs.
	resourceCap = time.Hour
)

// available reports whether there is a unit.
func (b *budget) available(now time.Duration) bool { return now >= b.next }

// spend takes a unit, if there is one.
func (b *budget) spend(now time.Duration) bool {
	if !b.available(now) {
		return false
	}
	b.charge(now)
	return true
}

// charge takes a unit, whether there is one or not: for what has happened already.
func (b *budget) charge(now time.Duration) {
	b.level = max(0, b.level-int((now-b.last)/b.cap)) + 1
	delay := firstDelay
	for n := 1; n < b.level && delay < b.cap; n++ {
		delay *= 2
		if delay >= b.cap {
			delay, b.level = b.cap, n+1 // the cap is the last step
		}
	}
	b.last = now
	b.next = now + clock.Spread(delay)
}

// pausedError says that nothing is tried for now, and unwraps to what went wrong last. [RecoveryPolicy] does not act on
// a Refusal in it: that one was dealt with.
type pausedError struct {
	until time.Time
	cause error
}

func (e *pausedError) Error() string {
	return fmt.Sprintf(
		"mtls: nothing was tried, the next attempt is at %s, since: %v",
		e.until.UTC().Format("15:04:05 MST"),
		e.cause,
	)
}

func (e *pausedError) Unwrap() error { return e.cause }

// NonRetriable marks the error for azcore's retry policy: trying again before its time cannot help.
func (*pausedError) NonRetriable() {}
