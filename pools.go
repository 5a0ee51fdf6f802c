package azmtls

import (
	"net/http"
	"sync"

	"github.com/azmtls/azmtls/mtls"
)

// pools holds the connections of a credential: one Transport, and so one pool, per binding.
type pools struct {
	template *http.Transport

	mu           sync.RWMutex
	byThumbprint map[string]*mtls.Transport
}

// of returns the transport of the binding. A new binding takes the place of the old ones: their idle connections are closed,
// and those that were evicted are forgotten.
func (p *pools) of(b *mtls.Binding) *mtls.Transport {
	thumbprint := b.Thumbprint()
	p.mu.RLock()
	t := p.byThumbprint[thumbprint]
	p.mu.RUnlock()
	if t != nil {
		return t
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.byThumbprint[thumbprint]; t != nil {
		return t
	}
	for other, old := range p.byThumbprint {
		old.CloseIdleConnections()
		if old.Binding().Evicted() {
			delete(p.byThumbprint, other)
		}
	}
	if p.byThumbprint == nil {
		p.byThumbprint = map[string]*mtls.Transport{}
	}
	t = mtls.NewTransport(p.template, b)
	p.byThumbprint[thumbprint] = t
	return t
}

// close forgets the connections of a binding that was evicted: idle ones end now, the others with their request.
func (p *pools) close(b *mtls.Binding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.byThumbprint[b.Thumbprint()]; t != nil {
		t.CloseIdleConnections()
		delete(p.byThumbprint, b.Thumbprint())
	}
}

func (p *pools) closeIdle() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, t := range p.byThumbprint {
		t.CloseIdleConnections()
	}
}
