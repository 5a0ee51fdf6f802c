package mtls

import (
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
)

const (
	// confirmAfter is the least time from one lost connection to the one that confirms it: a restart takes less.
	confirmAfter = 250 * time.Millisecond
	// confirmWithin is the most. Two connections lost further apart have nothing to do with each other.
	confirmWithin = 5 * time.Minute
	// knownFor is how long a host that accepted the binding is taken for one that accepts it.
	knownFor = 5 * time.Minute
	// maxHosts bounds what a Transport remembers.
	maxHosts = 1000
)

// host is what a Transport remembers of one host. Times are the clock's boot time.
type host struct {
	token bool // it is the token endpoint of the binding

	mu       sync.Mutex
	lane     laneState
	accepted time.Duration // when it accepted the binding last; 0: never
	lost     time.Duration // when it lost the first connection that nothing has confirmed or cleared yet; 0: none
	used     time.Duration
	noted    time.Duration // when acceptance was noted last, on the monotonic clock
}

// hosts are the hosts of a Transport, by host[:port]. The zero value is ready.
type hosts struct {
	mu    sync.RWMutex
	known map[string]*host
}

// find returns what is remembered of a host, nil if nothing is.
func (h *hosts) find(name string) *host {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.known[name]
}

// add begins to remember a host, unless another has. Where there are too many, those not used for long are forgotten.
func (h *hosts) add(name string, token bool, now time.Duration) *host {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.known[name]; known != nil {
		return known
	}
	if h.known == nil {
		h.known = map[string]*host{}
	}
	if len(h.known) >= maxHosts {
		h.forget(now)
	}
	added := &host{token: token, used: now}
	h.known[name] = added
	return added
}

// forget drops the hosts that were not used for as long as a memory of them counts, or else any one.
func (h *hosts) forget(now time.Duration) {
	for name, known := range h.known {
		known.mu.Lock()
		idle := now-known.used > max(confirmWithin, knownFor)
		known.mu.Unlock()
		if idle {
			delete(h.known, name)
		}
	}
	for name := range h.known {
		if len(h.known) < maxHosts {
			return
		}
		delete(h.known, name)
	}
}

// accept notes that the host accepted the binding: once a second is enough, as long as nothing was lost.
func (h *host) accept(c *clock.Clock) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := c.Monotonic()
	if h.accepted != 0 && h.lost == 0 && now-h.noted < time.Second {
		return
	}
	h.accepted = c.Boot()
	h.used, h.lost, h.noted = h.accepted, 0, now
}

// knows reports whether the host accepted the binding not long ago.
func (h *host) knows(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.accepted != 0 && now-h.accepted <= knownFor
}

// lose notes a lost connection and reports whether it confirms an earlier one. The first unconfirmed one counts: a
// later one that is too near does not take its place.
func (h *host) lose(now time.Duration) (confirmed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.used = now
	since := now - h.lost
	switch {
	case h.lost != 0 && since < confirmAfter:
		return false
	case h.lost != 0 && since <= confirmWithin:
		return true
	}
	h.lost = now
	return false
}
