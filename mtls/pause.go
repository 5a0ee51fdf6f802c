package mtls

import (
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/failure"
)

// pause is how long an IMDS asked to be left alone. It is shared by all identities of that IMDS.
type pause struct {
	mu    sync.Mutex
	until time.Duration // the clock's boot time
	cause error
}

// note remembers the pause that a failure asks for, if it asks for one.
func (p *pause) note(now time.Duration, err error) {
	asked, ok := failure.PauseOf(err)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.cause = now+asked, err
}

// left returns how long it still lasts, and why; 0 if it does not.
func (p *pause) left(now time.Duration) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.until-now), p.cause
}
