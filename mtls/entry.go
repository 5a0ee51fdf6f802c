package mtls

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// entry is everything a Cache knows of one identity. Whoever loads or mints holds the turn; mu guards the fields below it
// and is never held during I/O.
type entry struct {
	current atomic.Pointer[Binding]
	turn    chan struct{}
	queue   storeQueue

	mu       sync.Mutex
	minted   *mintResult
	rejected map[string]time.Time // thumbprint -> NotAfter of the certificates that must not come back
	refusals map[string]*backoff  // by resource host, or tokenEndpoint
}

// mintResult is what the latest mint ended with, shared with those who waited for it.
type mintResult struct {
	binding *Binding
	err     error
}

func newEntry() *entry {
	return &entry{turn: make(chan struct{}, 1), rejected: map[string]time.Time{}, refusals: map[string]*backoff{}}
}

// usable returns the binding in memory, nil if there is none or too little is left of it.
func (e *entry) usable(now time.Time) *Binding {
	if b := e.current.Load(); b != nil && b.Cacheable(now) {
		return b
	}
	return nil
}

// keep puts the binding in memory, unless it was rejected meanwhile.
func (e *entry) keep(b *Binding) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, rejected := e.rejected[b.Thumbprint()]; rejected {
		return false
	}
	e.current.Store(b)
	return true
}

func (e *entry) lastMint() *mintResult {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.minted
}

func (e *entry) setLastMint(r *mintResult) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.minted = r
}

func (e *entry) load(ctx context.Context, src Source) (*Binding, error) {
	var loaded *Binding
	wait := e.queue.enqueue(ctx, func(ctx context.Context) error {
		stored, err := src.store().Load(ctx, src.Alias)
		if err != nil {
			return err
		}
		if stored == nil {
			return ErrNotFound
		}
		b := *stored // the store may hand the same pointer to others
		b.admit(false)
		loaded = &b
		return nil
	})
	if err := wait(); err != nil {
		return nil, err
	}
	return loaded, nil
}

func (e *entry) save(ctx context.Context, src Source, b *Binding) error {
	return e.enqueueSave(ctx, src, b)()
}

// enqueueSave outlives the caller's context: a binding that was paid for is worth keeping.
func (e *entry) enqueueSave(ctx context.Context, src Source, b *Binding) (wait func() error) {
	return e.queue.enqueue(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return src.store().Save(ctx, src.Alias, b)
	})
}

// tokenEndpoint is the resource name of the token endpoint.
const tokenEndpoint = ""

// refusal says who rejected a binding, and how.
type refusal struct {
	resource string
	cause    error
}

// evict forgets the binding, remembers its thumbprint and starts the deletion from the store; first is false, and nothing
// happens, when that had been done before. All of it is ordered before whatever the next mint saves.
func (e *entry) evict(ctx context.Context, src Source, bad *Binding, why *refusal, now time.Time) (deleted func() error, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	thumbprint := bad.Thumbprint()
	bad.markEvicted()
	if _, known := e.rejected[thumbprint]; known {
		return nil, false
	}
	e.remember(thumbprint, bad, now)
	if why != nil && (why.resource != tokenEndpoint || bad.fresh()) {
		e.countLocked(*why, now)
	}
	survivor := e.current.Load()
	if survivor != nil && survivor.Thumbprint() == thumbprint {
		survivor.markEvicted()
		e.current.Store(nil)
		survivor = nil
	}
	deleted = e.queue.enqueue(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return src.store().DeleteAll(ctx, src.Alias)
	})
	if survivor != nil { // a newer binding had taken the place of the bad one: it does not get lost with it
		e.enqueueSave(ctx, src, survivor)
	}
	return deleted, true
}

// remember keeps the thumbprint for as long as its certificate could be presented.
func (e *entry) remember(thumbprint string, bad *Binding, now time.Time) {
	for old, notAfter := range e.rejected {
		if now.After(notAfter) {
			delete(e.rejected, old)
		}
	}
	notAfter := now.Add(minRemaining)
	if leaf := bad.Certificate.Leaf; leaf != nil && leaf.NotAfter.After(notAfter) {
		notAfter = leaf.NotAfter
	}
	e.rejected[thumbprint] = notAfter
}

func (e *entry) isRejected(thumbprint string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, rejected := e.rejected[thumbprint]
	return rejected
}

// delay reports why nothing may be minted (the token endpoint) or evicted (a resource) on this account now, nil if it may.
func (e *entry) delay(resource string, now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b := e.refusals[resource]; b != nil {
		return b.err(now)
	}
	return nil
}

func (e *entry) count(why refusal, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.countLocked(why, now)
}

func (e *entry) countLocked(why refusal, now time.Time) {
	b := e.refusals[why.resource]
	if b == nil {
		b = &backoff{}
		e.refusals[why.resource] = b
	}
	b.refused(now, why.cause)
}

func (e *entry) forgetRefusals(resource string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refusals, resource)
}
