package tokencache

import (
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
)

// Entry is a token and the binding that it was obtained with. Times are its age.
type Entry struct {
	Key     Key
	Token   azcore.AccessToken
	Binding *mtls.Binding
	// Authorization is the value of the header with which a bound token must be sent; empty for others.
	Authorization string

	acquired clock.Instant
	life     time.Duration
	failures atomic.Int32 // refreshes so far
	next     atomic.Int64 // when to refresh
}

const (
	// maxMargin is how long before its end a token is given out no more, at the most, so that it outlives the request.
	maxMargin = 2 * time.Minute
	// Refreshes that fail are tried again after firstPause, doubling to lastPause.
	firstPause = 30 * time.Second
	lastPause  = 5 * time.Minute
)

// NewEntry returns an entry for a token that was just obtained, with a life and the advice when to refresh it. A bound
// token ends with its certificate.
func (c *Cache) NewEntry(key Key, token string, life, refresh time.Duration, b *mtls.Binding) *Entry {
	if left := b.Remaining(); key.Bound && left < life {
		life = left
	}
	e := &Entry{Key: key, Binding: b, acquired: c.clock.Now(), life: life}
	now := c.clock.Wall().UTC()
	e.Token = azcore.AccessToken{Token: token, ExpiresOn: now.Add(life), RefreshOn: now.Add(refresh)}
	e.next.Store(int64(clock.Spread(refresh)))
	if key.Bound {
		e.Authorization = SchemePoP + " " + token
		e.Token.Token = e.Authorization[len(SchemePoP)+1:] // kept once
	}
	return e
}

// valid reports whether the token can be used at that age.
func (e *Entry) valid(age time.Duration) bool {
	return age < e.life-min(maxMargin, e.life/10) && !(e.Key.Bound && e.Binding.Evicted()) && !e.Binding.Disowned()
}

// RefreshAt returns the age at which the token is refreshed next, by the first who asks for it then.
func (e *Entry) RefreshAt() time.Duration { return time.Duration(e.next.Load()) }

// refreshDue reports whether it is time to refresh the token at that age. It does so once; the next time, should the
// refresh fail, is some pauses later.
func (e *Entry) refreshDue(age time.Duration) bool {
	next := e.next.Load()
	if int64(age) < next {
		return false
	}
	pause := min(firstPause<<min(e.failures.Load(), 10), lastPause)
	if !e.next.CompareAndSwap(next, int64(age+pause)) {
		return false
	}
	e.failures.Add(1)
	return true
}
