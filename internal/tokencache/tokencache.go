// Package tokencache keeps the tokens of one credential. A bound token lives no longer than the binding that it is bound to, and
// not beyond the binding's eviction; a bearer token does not depend on it.
package tokencache

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/mtls"
)

// Key says which token: a bound one does not stand for a bearer token, nor one with the capability to handle continuous access
// evaluation for one without.
type Key struct {
	Resource string
	Bound    bool
	CAE      bool
}

// Scheme returns the authentication scheme of such a token.
func (k Key) Scheme() string {
	if k.Bound {
		return SchemePoP
	}
	return SchemeBearer
}

const (
	// SchemePoP is the authentication scheme of bound tokens.
	SchemePoP = "mtls_pop"
	// SchemeBearer is that of all others (RFC 6750).
	SchemeBearer = "Bearer"
)

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

// Entry is a token and the binding that it was obtained with.
type Entry struct {
	Key     Key
	Token   azcore.AccessToken
	Binding *mtls.Binding
	// Authorization is the value of the header with which the token must be sent.
	Authorization string

	validUntil  time.Duration // on the clock of the Cache, as are the others
	expires     time.Duration
	nextRefresh atomic.Int64 // a time.Duration; 0 is never
}

const (
	// expiryMargin is how long before its end a token is given out no more, so that it outlives the request.
	expiryMargin = 2 * time.Minute
	// refreshPause is the time from one attempt to refresh a token early to the next.
	refreshPause = 30 * time.Second
)

// Cache keeps entries by key. Reading takes no lock: writers replace the whole map.
type Cache struct {
	clock   *clock.Clock // nil: the real clock
	epoch   time.Time
	entries atomic.Pointer[map[string]*[4]*Entry] // by resource, then kind
	flights flight.Group[flightKey, *Entry]

	mu     sync.RWMutex
	issued map[string]*Entry // bound tokens that are still out there, evicted ones too
}

// New returns an empty Cache. A nil clock is the real one.
func New(clock *clock.Clock) *Cache {
	c := &Cache{clock: clock, epoch: time.Now()}
	if clock != nil {
		c.epoch = clock.Wall()
	}
	c.entries.Store(&map[string]*[4]*Entry{})
	return c
}

// elapsed is the clock of the Cache. The real one reads the monotonic clock only, at half the cost of time.Now.
func (c *Cache) elapsed() time.Duration {
	if c.clock == nil {
		return time.Since(c.epoch)
	}
	return c.clock.Wall().Sub(c.epoch)
}

// NewEntry returns an entry that is not in the cache yet. A bound token ends with its certificate.
func (c *Cache) NewEntry(key Key, token azcore.AccessToken, b *mtls.Binding) *Entry {
	if leaf := b.Certificate.Leaf; key.Bound && leaf != nil && leaf.NotAfter.Before(token.ExpiresOn) {
		token.ExpiresOn = leaf.NotAfter.UTC()
	}
	e := &Entry{Key: key, Token: token, Binding: b, Authorization: key.Scheme() + " " + token.Token, expires: token.ExpiresOn.Sub(c.epoch)}
	e.validUntil = e.expires - expiryMargin
	if !token.RefreshOn.IsZero() {
		e.nextRefresh.Store(int64(token.RefreshOn.Sub(c.epoch)))
	}
	return e
}

// Get returns the valid entry of the key, nil if there is none. It says refresh when it is time to replace the token, though it
// is valid, and no one else was told so in the last 30 s.
func (c *Cache) Get(key Key) (e *Entry, refresh bool) {
	kinds := (*c.entries.Load())[key.Resource]
	if kinds == nil {
		return nil, false
	}
	e = kinds[key.kind()]
	now := c.elapsed()
	if e == nil || !e.valid(now) {
		return nil, false
	}
	return e, e.refreshDue(now)
}

// Valid reports whether the token can be used: it has not expired, nor, if it is bound, its binding been evicted.
func (c *Cache) Valid(e *Entry) bool { return e.valid(c.elapsed()) }

func (e *Entry) valid(now time.Duration) bool {
	return now < e.validUntil && !(e.Key.Bound && e.Binding.Evicted())
}

func (e *Entry) refreshDue(now time.Duration) bool {
	next := e.nextRefresh.Load()
	return next != 0 && int64(now) >= next && e.nextRefresh.CompareAndSwap(next, int64(now+refreshPause))
}

// Put keeps the entry and drops those that are not valid any more.
func (c *Cache) Put(e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.elapsed()
	entries := map[string]*[4]*Entry{}
	for resource, kinds := range *c.entries.Load() {
		kept := *kinds
		for kind, old := range kept {
			if old != nil && !old.valid(now) {
				kept[kind] = nil
			}
		}
		if kept != ([4]*Entry{}) {
			entries[resource] = &kept
		}
	}
	kinds := entries[e.Key.Resource]
	if kinds == nil {
		kinds = &[4]*Entry{}
		entries[e.Key.Resource] = kinds
	}
	kinds[e.Key.kind()] = e
	c.entries.Store(&entries)
}

// Remember keeps the entry, by the value of its token, as one that was issued here, until the token expires. See Issued.
func (c *Cache) Remember(e *Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issued == nil {
		c.issued = map[string]*Entry{}
	}
	now := c.elapsed()
	maps.DeleteFunc(c.issued, func(_ string, e *Entry) bool { return now > e.expires })
	c.issued[e.Token.Token] = e
}

// Issued returns the entry of a token that was remembered, nil for the token of somebody else. It need not be valid.
func (c *Cache) Issued(token string) *Entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.issued[token]
}

// Share returns what acquire returns, to all who ask for the same key and claims at the same time. See [flight.Group.Do].
func (c *Cache) Share(
	ctx context.Context, key Key, claims string, acquire func(context.Context) (*Entry, error),
) (*Entry, error) {
	return c.flights.Do(ctx, flightKey{key, claims}, limits.Token, acquire)
}

// Refresh has acquire replace a token in the background. Those who need it before it is there share the work.
func (c *Cache) Refresh(key Key, acquire func(context.Context) (*Entry, error)) {
	c.flights.Start(flightKey{Key: key}, limits.Token, acquire)
}

// CancelUnwanted cancels the work that nobody waits for.
func (c *Cache) CancelUnwanted() { c.flights.CancelUnwanted() }

type flightKey struct {
	Key
	claims string
}
