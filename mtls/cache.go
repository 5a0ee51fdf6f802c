package mtls

import (
	"context"
	"reflect"
	"sync"

	"github.com/azmtls/azmtls/internal/clock"
)

// Source says which binding is wanted and how to get it.
type Source struct {
	// Alias names the identity in memory and store, for example "system_assigned_managed_identity#att=0".
	Alias string
	// Endpoint is the base URL of the IMDS that issues the binding.
	Endpoint string
	// Keys provides the key of the binding. The Cache only compares it; Mint is what asks it.
	Keys KeyProvider
	// MinStrength is the weakest key of a binding that is served to this source. Mint sees to its own.
	MinStrength BindingStrength
	// Store keeps the binding beyond the process. Nil is NoStore{}.
	Store Store
	// Mint makes a new binding. It asks Keys at every call.
	Mint func(context.Context, MintRequest) (*Binding, error)
	// Identify asks the machine's metadata whose machine it is. A binding from the store that is another's is not used,
	// and Entra's word that it knows no such identity is checked. Nil: bindings are not checked.
	Identify func(context.Context) (Identity, error)
	// Foreground does without work in the background: bindings are not renewed before their time.
	Foreground bool
}

// MintRequest says what a mint must not take from a cache.
type MintRequest struct {
	// BypassCache asks IMDS for a certificate that it has not issued before.
	BypassCache bool
	// FreshAttestation asks for an attestation of the key that was not used before.
	FreshAttestation bool
}

// Cache keeps bindings in memory over the store of each source. Sources share an entry only when alias, endpoint, key
// provider and store are the same; a provider or store whose type does not allow == is told apart by its type alone, so
// give such a one a Cache of its own. The zero value is ready, and safe for concurrent use.
//
// The Cache answers which binding serves a source. What happens to one is its entry's.
type Cache struct {
	// Clock is nil but in this module's tests.
	Clock *clock.Clock

	mu      sync.RWMutex
	entries map[identity]*entry
	imds    map[string]*imds // by endpoint
}

// maxEntries bounds how many identities a Cache keeps: a virtual machine has a few.
const maxEntries = 1000

// identity is what sources must have in common to share a binding.
type identity struct {
	alias, endpoint string
	keys, store     any
}

// GetOrMint returns the binding of the source: from memory, else from the store, else a new one. Concurrent callers
// share one mint and its result, which goes on when its caller gives up. Its errors are those of Mint, ctx.Err() for a
// caller that gave up waiting, and, while no other may be minted, the cause of that.
func (c *Cache) GetOrMint(ctx context.Context, src Source) (*Binding, error) {
	return c.entry(src).get(ctx, src)
}

// Renew has a new binding minted now, and puts it in the place of the one in use when that worked: the old one, and
// what is bound to it, serve on otherwise. IMDS is asked not to answer with a certificate that it has issued before. It
// costs a unit of the budget for the word of the token endpoint; without one, or while IMDS asks to be left alone, the
// error says until when. Callers share the effort, with those of GetOrMint too.
func (c *Cache) Renew(ctx context.Context, src Source) error {
	return c.entry(src).demand(ctx, src)
}

// RemoveBadCert evicts the binding of a refusal: from memory if it is still the one there and, from the store, every
// entry of the alias. It is the one way in which a binding is evicted. A newer binding that another process put into
// the store is adopted instead. Evictions are rationed: there is a budget for the word of the token endpoint, whose
// host is that of the binding's Endpoint, and one for that of all resources together; a binding whose key is dead goes
// always.
//
// It reports whether another try is of use: the binding was evicted, now or earlier, or another was adopted. False says
// that the binding was kept. It never fails: what goes wrong is logged. A store that does not answer is given up on
// after 2 seconds.
func (c *Cache) RemoveBadCert(ctx context.Context, src Source, r *Refusal) (again bool) {
	if r == nil || r.Binding == nil || r.Binding.der() == nil {
		return false
	}
	return c.entry(src).remove(ctx, src, r)
}

// entry returns what is known of the source's identity.
func (c *Cache) entry(src Source) *entry {
	id := identity{alias: src.Alias, endpoint: src.Endpoint, keys: mapKey(src.Keys), store: mapKey(src.store())}
	c.mu.RLock()
	e := c.entries[id]
	c.mu.RUnlock()
	if e != nil {
		return e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[id]; e != nil {
		return e
	}
	if c.entries == nil {
		c.entries = map[identity]*entry{}
	}
	for other := range c.entries {
		if len(c.entries) < maxEntries {
			break
		}
		delete(c.entries, other)
	}
	e = newEntry(c.Clock, c.imdsAt(src.Endpoint))
	c.entries[id] = e
	return e
}

func (s Source) store() Store {
	if s.Store == nil {
		return NoStore{}
	}
	return s.Store
}

// mapKey returns what tells v from others as a map key: v itself, or its type where == on it would panic.
func mapKey(v any) any {
	if v == nil || reflect.ValueOf(v).Comparable() {
		return v
	}
	return reflect.TypeOf(v)
}
