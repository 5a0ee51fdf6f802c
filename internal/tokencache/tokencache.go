// Package tokencache keeps the tokens of one credential. A token lives no longer than the binding that it was obtained with.
package tokencache

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls/mtls"
	"golang.org/x/sync/singleflight"
)

// Key says which token: tokens of different types, or with and without the capability to handle continuous access evaluation,
// do not stand for one another.
type Key struct {
	Resource  string
	TokenType string
	CAE       bool
}

// Entry is a token and the binding that it was obtained with.
type Entry struct {
	Key     Key
	Token   azcore.AccessToken
	Binding *mtls.Binding

	nextRefresh atomic.Int64 // Unix seconds; 0 is Token.RefreshOn
}

const (
	// expiryMargin is how long before its end a token is given out no more, so that it outlives the request.
	expiryMargin = 2 * time.Minute
	// refreshPause is the time from one attempt to refresh a token early to the next.
	refreshPause = 30 * time.Second
)

// Valid reports whether the token can be used: it has not expired, nor its binding been evicted.
func (e *Entry) Valid(now time.Time) bool {
	return now.Before(e.Token.ExpiresOn.Add(-expiryMargin)) && !e.Binding.Evicted()
}

// RefreshDue reports that it is time to replace the token, though it is valid, and that no one else was told so in the last
// 30 s.
func (e *Entry) RefreshDue(now time.Time) bool {
	if e.Token.RefreshOn.IsZero() || now.Before(e.Token.RefreshOn) {
		return false
	}
	next := e.nextRefresh.Load()
	return now.Unix() >= next && e.nextRefresh.CompareAndSwap(next, now.Add(refreshPause).Unix())
}

// Cache keeps entries by key. Reading takes no lock: writers replace the whole map. The zero value is ready.
type Cache struct {
	entries atomic.Pointer[map[Key]*Entry]
	flights singleflight.Group

	mu     sync.RWMutex
	issued map[string]*Entry // bound tokens that are still out there, evicted ones too
}

// Get returns the valid entry of the key, nil if there is none.
func (c *Cache) Get(key Key, now time.Time) *Entry {
	entries := c.entries.Load()
	if entries == nil {
		return nil
	}
	if e := (*entries)[key]; e != nil && e.Valid(now) {
		return e
	}
	return nil
}

// Put keeps the entry and drops those that are not valid any more.
func (c *Cache) Put(e *Entry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries := map[Key]*Entry{}
	if old := c.entries.Load(); old != nil {
		entries = maps.Clone(*old)
		maps.DeleteFunc(entries, func(_ Key, e *Entry) bool { return !e.Valid(now) })
	}
	entries[e.Key] = e
	c.entries.Store(&entries)
}

// Remember keeps the token of the entry, by its value, as one that was issued here, until it expires. See Issued.
func (c *Cache) Remember(e *Entry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issued == nil {
		c.issued = map[string]*Entry{}
	}
	maps.DeleteFunc(c.issued, func(_ string, e *Entry) bool { return now.After(e.Token.ExpiresOn) })
	c.issued[e.Token.Token] = e
}

// Issued returns the entry of a token that was remembered, nil for the token of somebody else. It need not be valid.
func (c *Cache) Issued(token string) *Entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.issued[token]
}

// Share runs acquire once for all who ask for the same key and claims at the same time. It runs in the context of the first of
// them; when that one gives up, another takes over, and each waits no longer than its own context allows.
func (c *Cache) Share(ctx context.Context, key Key, claims string, acquire func(context.Context) (*Entry, error)) (*Entry, error) {
	type landing struct {
		entry     *Entry
		err       error
		abandoned bool
	}
	flight := fmt.Sprintf("%q %s %t %s", key.Resource, key.TokenType, key.CAE, claims)
	for {
		result := c.flights.DoChan(flight, func() (any, error) {
			entry, err := acquire(ctx)
			return landing{entry, err, err != nil && ctx.Err() != nil}, nil
		})
		select {
		case r := <-result:
			landed := r.Val.(landing)
			if landed.abandoned && ctx.Err() == nil {
				continue
			}
			return landed.entry, landed.err
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a token: %w", ctx.Err())
		}
	}
}
