package imdstest

import (
	"time"

	"github.com/azmtls/azmtls/internal/clock"
)

// Clock is one clock for a Server and the credentials of its [Server.CredentialOptions]. It stands still but for
// Advance: a test sees a token expire, a certificate be renewed or a budget refill in no time. Where a credential waits
// before it tries again, the clock moves on by itself. The limits of the library pass on it too, so a call to a
// Server that hangs ends when the test advances the clock, or when the call's own context ends.
type Clock struct{ fake *clock.Fake }

// NewClock returns a Clock that stands at the given time.
func NewClock(now time.Time) *Clock { return &Clock{clock.NewFake(now)} }

// Now returns the time.
func (c *Clock) Now() time.Time { return c.fake.Wall() }

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) { c.fake.Advance(d) }

// Set sets the time of day, as a correction of the machine's clock does. No time passes by that.
func (c *Clock) Set(now time.Time) { c.fake.SetWall(now) }

// internal returns the clock as this module's packages know it. It returns nil, the real one, for a nil Clock.
func (c *Clock) internal() *clock.Clock {
	if c == nil {
		return nil
	}
	return c.fake.Clock()
}
