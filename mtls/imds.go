package mtls

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/failure"
)

// imds is what is remembered of an IMDS. It is shared by all identities that it certifies.
type imds struct {
	answered atomic.Bool // ever

	mu    sync.Mutex
	until time.Duration // it asked to be left alone so long, by the clock's boot time
	cause error
}

// imdsAt returns what is remembered of the IMDS at an endpoint. The caller holds c.mu.
func (c *Cache) imdsAt(endpoint string) *imds {
	if i := c.imds[endpoint]; i != nil {
		return i
	}
	if c.imds == nil || len(c.imds) >= maxEntries {
		c.imds = map[string]*imds{}
	}
	i := &imds{}
	c.imds[endpoint] = i
	return i
}

// note remembers the pause that a failure asks for, if it asks for one.
func (i *imds) note(now time.Duration, err error) {
	asked, ok := failure.PauseOf(err)
	if !ok {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.until, i.cause = now+asked, err
}

// left returns how long the pause still lasts, and why; 0 if it does not.
func (i *imds) left(now time.Duration) (time.Duration, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return max(0, i.until-now), i.cause
}
