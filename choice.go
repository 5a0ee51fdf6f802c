package azmtls

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/azmtls/azmtls/internal/eventlog"
)

// wantsBound decides which type of token this call gets: one that is bound to the certificate, or a bearer token. Auto
// binds those of a bound client that puts its token where azcore's bearer policy does, which is what asks with
// EnableCAE.
func (c *ImdsV2MtlsCredential) wantsBound(
	ctx context.Context, resource string, cae bool,
) (bool, error) {
	if c.tokenType == TokenTypeBearer {
		return false, nil
	}
	marked := c.clients.marked(ctx) != nil
	if marked && cae {
		return c.tokenType == TokenTypeMtlsPoP || !c.grants.bearer(resource), nil
	}
	c.clients.hint(ctx, c.tokenType, resource, marked, cae)
	if c.tokenType == TokenTypeMtlsPoP && marked {
		return false, fmt.Errorf("%w: the client asks for one that it will not send as Authorization: Bearer (EnableCAE is "+
			"not set), so that it would go without its certificate", ErrTokenBindingUnsupported)
	}
	return c.tokenType == TokenTypeMtlsPoP, nil
}

// hints are what is said, once for each credential, where a program most likely means a client to be bound, and it is
// not. Nothing fails there, or it fails at the resource with a 401 that says nothing of it.
type hints struct {
	elsewhere, other, late, demanded, bypassed hint
}

// hint says what is amiss with a call for a token that does not come from azcore's bearer policy in a client that is
// bound to this credential.
func (b *binder) hint(ctx context.Context, wanted TokenType, resource string, marked, cae bool) {
	switch h := &b.hints; {
	case marked:
		b.say(ctx, &h.elsewhere, "a bound client asked for a token for %s that it does not send as Authorization: Bearer, "+
			"as those of Cosmos DB and container registries do: with TokenTypeAuto it is a bearer token, "+
			"bound to no certificate", resource)
	case cae && isMarked(ctx):
		b.say(ctx, &h.other, "a client that is bound to another credential asked for a token for %s, and will send it as "+
			"Bearer, without a certificate: call BindClientOptions of the credential that the client is made with", resource)
	case cae && b.unused.Load() > 0:
		b.say(ctx, &h.late, "a client that is not bound asked for a token for %s, while no client has used the options that "+
			"BindClientOptions was given: call it before the client is made, which copies its options", resource)
	case wanted == TokenTypeMtlsPoP:
		b.say(ctx, &h.demanded, "a proof-of-possession token for %s was asked for, but not by a bound client: an Azure SDK "+
			"client sends it as Bearer, and is refused. Call BindClientOptions before the client is made, "+
			"or leave TokenType at TokenTypeAuto", resource)
	}
}

// hint is said once.
type hint struct{ said atomic.Bool }

func (b *binder) say(ctx context.Context, h *hint, format, about string) {
	if !h.said.Load() && h.said.CompareAndSwap(false, true) {
		eventlog.Writef(eventlog.Observe(ctx, b.observer), EventAuthentication, format, about)
	}
}
