// Package tokencache keeps the tokens of one credential. A bound token lives no longer than the binding that it is
// bound to, and not beyond the binding's eviction; a bearer token does not depend on it.
package tokencache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/limits"
)

// Key says which token: a bound one does not stand for a bearer token, nor one with the capability to handle continuous
// access evaluation for one without.
type Key struct {
	Resource string
	Bound    bool
	CAE      bool
}

const (
	// SchemePoP is the authentication scheme of bound tokens.
	SchemePoP = "mtls_pop"
	// SchemeBearer is that of all others (RFC 6750).
	SchemeBearer = "Bearer"
)

// Request is what those want alike who share the work of getting a token.
type Request struct {
	Key
	// Claims go to Entra.
	Claims string
	// NoBearer says that a bearer token does not do where Entra declines a bound one.
	NoBearer bool
}

// kind returns the place of the key among those of its resource.
func (k Key) kind() int {
	kind := 0
	if k.Bound {
		kind |= 1
	}
	if k.CAE {
		kind |= 2
	}
	return kind
}

// kinds are the entries of one resource.
type kinds [4]atomic.Pointer[Entry]

// Cache keeps entries by key. Reading takes no lock, and neither reading nor adding costs more because there are more
// of them.
type Cache struct {
	clock     clock.Fast
	resources sync.Map // string -> *kinds: half the cost of a map by Key
	issued    sync.Map // token -> *Entry: bound ones that are still out there, those of evicted bindings too
	flights   flight.Group[Request, *Entry]

	mu   sync.Mutex // of those who add
	live int        // resources that the last sweep left
	puts int        // since then
}

// New returns an empty Cache. A nil clock is the real one.
func New(c *clock.Clock) *Cache {
	return &Cache{clock: clock.Fast{Clock: c}, flights: flight.Group[Request, *Entry]{Clock: c}}
}

// Get returns the valid entry of the key, nil if there is none. It says refresh when it is time to replace the token,
// though it is valid, and no one else was told so of late.
func (c *Cache) Get(key Key) (e *Entry, refresh bool) {
	found, ok := c.resources.Load(key.Resource)
	if !ok {
		return nil, false
	}
	e = found.(*kinds)[key.kind()].Load()
	if e == nil {
		return nil, false
	}
	age := c.clock.Since(e.acquired)
	if !e.valid(age) {
		return nil, false
	}
	return e, e.refreshDue(age)
}

// Valid reports whether the token can be used: it has not expired, nor, if it is bound, its binding been evicted.
func (c *Cache) Valid(e *Entry) bool { return e.valid(c.clock.Since(e.acquired)) }

// Put keeps the entry; a bound one is remembered by the value of its token too, until a day after that
// expired: see Issued.
func (c *Cache) Put(e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.resources.Load(e.Key.Resource)
	if !ok {
		found = &kinds{}
		c.resources.Store(e.Key.Resource, found)
	}
	found.(*kinds)[e.Key.kind()].Store(e)
	if e.Key.Bound {
		c.issued.Store(e.Token.Token, e)
	}
	if c.puts++; c.puts > max(sweepLeast, c.live) {
		c.puts, c.live = 0, c.sweep()
	}
}

// sweepLeast is how many tokens are added before those that have expired are looked for. With more, it takes as many as
// there are, so that a sweep costs each of them the same.
const sweepLeast = 64

// outlives is how long a bound token is known as ours after its end. A client whose policy goes by a wall clock that
// was set back still sends it then; taken for somebody else's, it would go out as a bearer token.
const outlives = 24 * time.Hour

// sweep drops what can be used no more, and returns how many resources are left.
func (c *Cache) sweep() (live int) {
	c.resources.Range(func(resource, value any) bool {
		empty := true
		for i := range value.(*kinds) {
			at := &value.(*kinds)[i]
			switch e := at.Load(); {
			case e == nil:
			case c.Valid(e):
				empty = false
			default:
				at.Store(nil)
			}
		}
		if empty {
			c.resources.Delete(resource)
		} else {
			live++
		}
		return true
	})
	c.issued.Range(func(token, value any) bool {
		if e := value.(*Entry); c.clock.Since(e.acquired) > e.life+outlives {
			c.issued.Delete(token)
		}
		return true
	})
	return live
}

// Issued returns the entry of a bound token that was put here, nil for the token of somebody else. It need not be
// valid.
func (c *Cache) Issued(token string) *Entry {
	found, ok := c.issued.Load(token)
	if !ok {
		return nil
	}
	return found.(*Entry)
}

// Share returns what acquire returns, to all who make the same request at the same time. See [flight.Group.Do].
func (c *Cache) Share(ctx context.Context, r Request, acquire func(context.Context) (*Entry, error)) (*Entry, error) {
	return c.flights.Do(ctx, r, limits.Token, acquire)
}

// Refresh has acquire replace a token in the background. Those who need it before it is there share the work.
func (c *Cache) Refresh(ctx context.Context, r Request, acquire func(context.Context) (*Entry, error)) {
	c.flights.Start(ctx, r, limits.Token, acquire)
}

// CancelUnwanted cancels the work that nobody waits for.
func (c *Cache) CancelUnwanted() { c.flights.CancelUnwanted() }
