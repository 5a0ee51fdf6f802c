package azmtls

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
)

// bindings is where the requests of a credential get their binding, and where they bring it back when it was refused.
type bindings struct {
	cache    *mtls.Cache
	source   mtls.Source
	template *http.Transport
	tracing  tracer
	closed   *atomic.Bool // no work in the background any more

	mu          sync.RWMutex
	connections map[*mtls.Binding]*mtls.Transport
}

// resolve returns the binding in use, with its connections.
func (b *bindings) resolve(ctx context.Context) (*mtls.Transport, error) {
	binding, err := b.cache.GetOrMint(ctx, b.traced(ctx))
	if err != nil {
		return nil, err
	}
	return b.of(binding), nil
}

// renew has another binding minted, and put in the place of the one in use.
func (b *bindings) renew(ctx context.Context) error { return b.cache.Renew(ctx, b.traced(ctx)) }

// traced returns the source for a call, whose span its mint goes by.
func (b *bindings) traced(ctx context.Context) mtls.Source {
	source := b.source
	source.Foreground = b.closed.Load()
	carry, id := b.tracing.carry(ctx), correlation.ID(ctx)
	source.Mint = func(ctx context.Context, request mtls.MintRequest) (*mtls.Binding, error) {
		return b.source.Mint(correlation.With(carry(ctx), id), request)
	}
	return source
}

// rejected has a refused binding evicted; its connections end, and its bound tokens go with it. It reports whether
// another try is of use.
func (b *bindings) rejected(ctx context.Context, refusal *mtls.Refusal) (again bool) {
	ctx, span := b.tracing.Start(ctx, credName+".recover", nil)
	defer span.End()
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.Refused, Thumbprint: refusal.Binding.Thumbprint(), Host: refusal.Host, Err: refusal.Err,
	})
	again = b.cache.RemoveBadCert(ctx, b.source, refusal)
	if refusal.Binding.Evicted() {
		b.forget(refusal.Binding)
	}
	span.SetAttributes(
		tracing.Attribute{Key: "azmtls.refused_certificate", Value: eventlog.Mask(refusal.Binding.Thumbprint())},
		tracing.Attribute{Key: "azmtls.refused_at", Value: refusal.Host},
		tracing.Attribute{Key: "azmtls.recovery_retry", Value: again},
	)
	return again
}

// maxConnections is how many bindings keep connections: the one in use, and some whose tokens still are.
const maxConnections = 8

// of returns the connections of a binding: a Transport, and so a pool, of its own. The idle connections of others are
// closed, and those that were evicted, or are too many, forgotten: they come back if a token of theirs is used.
func (b *bindings) of(binding *mtls.Binding) *mtls.Transport {
	b.mu.RLock()
	t := b.connections[binding]
	b.mu.RUnlock()
	if t != nil {
		return t
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.connections[binding]; t != nil {
		return t
	}
	for other, old := range b.connections {
		old.CloseIdleConnections()
		if other.Evicted() || len(b.connections) >= maxConnections {
			delete(b.connections, other)
		}
	}
	if b.connections == nil {
		b.connections = map[*mtls.Binding]*mtls.Transport{}
	}
	t = mtls.NewTransport(b.template, binding)
	b.connections[binding] = t
	return t
}

// forget drops the connections of a binding: idle ones end now, the others with their request.
func (b *bindings) forget(binding *mtls.Binding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.connections[binding]; t != nil {
		t.CloseIdleConnections()
		delete(b.connections, binding)
	}
}

func (b *bindings) closeIdle() {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, t := range b.connections {
		t.CloseIdleConnections()
	}
}
