package azmtls

import (
	"context"
	"errors"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
)

// RemoveBadCert says that a peer refused the binding of a [ImdsV2MtlsCredential.GetBoundToken]: by a certificate
// alert in the handshake, say, or in words of its own. Bound clients and those of Client do so by themselves. The
// binding is evicted from memory and store, if the budget of resources allows it, and what is bound to it goes too;
// the next GetBoundToken mints another. A lost connection, a timeout or a refused token is no reason: each eviction
// costs a certificate.
//
// It reports whether another try is of use: the binding was evicted, now or earlier, or is not in use here. False means
// that it stays, since the budget is spent. It never fails, and waits for the store and a look at the key at most.
func (c *ImdsV2MtlsCredential) RemoveBadCert(ctx context.Context, r *mtls.Refusal) (again bool) {
	if c.callable(ctx) != nil || r == nil || r.Binding == nil {
		return false
	}
	refusal := *r
	if refusal.Err == nil {
		refusal.Err = errRefused
	}
	return c.bindings.rejected(eventlog.Observe(ctx, c.record.observer), &refusal)
}

var errRefused = errors.New("its user says so")

// RemoveBadCert is [ImdsV2MtlsCredential.RemoveBadCert].
func (c *ManagedIdentityCredential) RemoveBadCert(ctx context.Context, r *mtls.Refusal) (again bool) {
	return c.inner().RemoveBadCert(ctx, r)
}
