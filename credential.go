package azmtls

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
)

const (
	credName = "ImdsV2MtlsCredential"
	module   = "github.com/azmtls/azmtls"
	version  = "v0.1.0"
)

// ImdsV2MtlsCredential authenticates a managed identity of an Azure virtual machine over mutual TLS, with a certificate that
// the instance metadata service (IMDS v2) issues and that the credential replaces by itself when it goes bad. It is safe for
// concurrent use. See the package documentation.
type ImdsV2MtlsCredential struct {
	tokenType TokenType
	demanding bool // the caller demanded what only IMDS v2 gives: bound tokens, or a strong key
	tokens    *tokencache.Cache
	grants    grants
	bindings  *bindings
	requests  *tokenClient
	keys      *keySource
	clients   *binder
	tracing   tracer
	closed    atomic.Bool // no work in the background any more
	closeIdle []func()
}

// NewImdsV2MtlsCredential creates an ImdsV2MtlsCredential. Pass nil to accept default options: the system-assigned identity,
// bearer tokens over mutual TLS for any client and proof-of-possession tokens for bound ones. It makes no network call.
func NewImdsV2MtlsCredential(options *ImdsV2MtlsCredentialOptions) (*ImdsV2MtlsCredential, error) {
	var o ImdsV2MtlsCredentialOptions
	if options != nil {
		o = *options
	}
	c, err := newCredential(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", credName, err)
	}
	return c, nil
}

func newCredential(o ImdsV2MtlsCredentialOptions) (*ImdsV2MtlsCredential, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.setDefaults()
	id, err := identity(o.ID)
	if err != nil {
		return nil, err
	}
	service, err := imds.New(imds.Options{
		ClientOptions: o.ClientOptions, ID: id, Clock: o.Cache.Clock, Answered: o.Cache.Answered,
	})
	if err != nil {
		return nil, err
	}
	c := &ImdsV2MtlsCredential{
		tokenType: o.TokenType,
		demanding: o.TokenType == TokenTypeMtlsPoP || o.MinBindingStrength > mtls.StrengthNone,
		tokens:    tokencache.New(o.Cache.Clock),
		grants:    grants{clock: o.Cache.Clock},
		tracing:   tracer{o.TracingProvider.NewTracer(credName, version)},
	}
	c.keys = newKeySource(o.KeyProvider, o.MinBindingStrength, &c.closed)
	issuer := &issuer{imds: service, keys: c.keys, attestation: o.Attestation}
	c.bindings = &bindings{
		cache: o.Cache,
		source: mtls.Source{
			Alias: o.alias(id), Endpoint: service.Endpoint(), Keys: o.KeyProvider, MinStrength: o.MinBindingStrength,
			Store: o.Store, Mint: issuer.mint, Identify: issuer.identify,
		},
		template: o.MTLSTransport,
		tracing:  c.tracing,
		closed:   &c.closed,
	}
	c.requests = newTokenClient(o.ClientOptions, c.bindings)
	c.clients = newBinder(c.tokens, c.bindings, c.current)
	c.closeIdle = []func(){c.bindings.closeIdle, c.clients.plain.CloseIdleConnections, service.CloseIdle}
	return c, nil
}

// GetToken returns a token for exactly one scope, for example "https://vault.azure.net/.default" or the bare resource. This
// method is called automatically by Azure SDK clients.
//
// With EnableCAE the token has the client capability "cp1"; Claims go to Entra and bypass cached tokens. Where there is no IMDS v2, or
// where it certifies nothing that this machine has, the error is azidentity's credential-unavailable error, so that a
// ChainedTokenCredential goes on; every other error is an *[AuthenticationError]. With TokenTypeMtlsPoP or a MinBindingStrength the
// caller has demanded what IMDS v2 alone gives: then its refusal to certify is an *[AuthenticationError] too.
func (c *ImdsV2MtlsCredential) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	e, err := c.get(ctx, opts, false)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return e.Token, nil
}

// GetBoundToken returns a proof-of-possession token, whatever the TokenType of the credential, and the binding that it is bound
// to: for programs that are neither Azure SDK clients nor use net/http, a gRPC client say. The token is of use only on
// connections that present Binding.Certificate, with the scheme mtls_pop. The two belong together: ask for both again, and
// connect anew, when the binding is another one than before.
//
// Options, caching, recovery and errors are those of [ImdsV2MtlsCredential.GetToken]. The error is
// [ErrTokenBindingUnsupported] where Entra says that it binds no tokens for the resource: a bearer token never takes the place.
func (c *ImdsV2MtlsCredential) GetBoundToken(
	ctx context.Context,
	opts policy.TokenRequestOptions,
) (azcore.AccessToken, *mtls.Binding, error) {
	e, err := c.get(ctx, opts, true)
	if err != nil {
		return azcore.AccessToken{}, nil, err
	}
	return e.Token, e.Binding, nil
}

// get returns a token: a bound one if that is demanded, else of the type that this call gets.
func (c *ImdsV2MtlsCredential) get(
	ctx context.Context,
	opts policy.TokenRequestOptions,
	demanded bool,
) (*tokencache.Entry, error) {
	if err := c.check(ctx, opts); err != nil {
		return nil, newAuthenticationError(err, nil)
	}
	resource := resourceOf(opts.Scopes[0])
	bound := demanded
	if !demanded {
		var err error
		if bound, err = c.wantsBound(ctx, resource, opts); err != nil {
			return nil, newAuthenticationError(err, nil)
		}
	}
	key := tokencache.Key{Resource: resource, Bound: bound, CAE: opts.EnableCAE}
	request := tokencache.Request{Key: key, Claims: opts.Claims, NoBearer: demanded || c.tokenType == TokenTypeMtlsPoP}
	if opts.Claims == "" {
		if e, refresh := c.tokens.Get(key); e != nil {
			if refresh && !c.closed.Load() {
				c.refresh(request)
			}
			return e, nil
		}
	}
	return c.token(ctx, request)
}

// token gets a token that the cache does not have, or may not give out because of claims. Callers who want the same one at the
// same time share it.
func (c *ImdsV2MtlsCredential) token(ctx context.Context, r tokencache.Request) (*tokencache.Entry, error) {
	if err := checkResource(r.Resource); err != nil {
		return nil, newAuthenticationError(err, nil)
	}
	if _, err := entra.MergeClaims(r.Claims, r.CAE); err != nil {
		return nil, newAuthenticationError(err, nil)
	}
	carry := c.tracing.carry(ctx)
	e, err := c.tokens.Share(ctx, r, func(ctx context.Context) (*tokencache.Entry, error) {
		if r.Claims == "" {
			if e, _ := c.tokens.Get(r.Key); e != nil {
				return e, nil // it came between this caller's look into the cache and its turn
			}
		}
		return c.authenticate(carry(ctx), r)
	})
	if err != nil && !explained(err) { // this caller stopped waiting
		if err == ctx.Err() {
			err = fmt.Errorf("nothing was done yet: %w", err)
		}
		err = newAuthenticationError(err, nil)
	}
	return e, err
}

// current returns the token to send in the place of one that was issued here: itself, or, when it is not valid any more, the
// one that GetToken would give now. A client's own policy may hold a token for long after its binding was evicted.
func (c *ImdsV2MtlsCredential) current(ctx context.Context, issued *tokencache.Entry) (*tokencache.Entry, error) {
	if c.tokens.Valid(issued) {
		return issued, nil
	}
	if e, _ := c.tokens.Get(issued.Key); e != nil {
		return e, nil
	}
	return c.token(ctx, tokencache.Request{Key: issued.Key, NoBearer: c.tokenType == TokenTypeMtlsPoP})
}

// authenticate asks Entra for a token.
func (c *ImdsV2MtlsCredential) authenticate(
	ctx context.Context,
	r tokencache.Request,
) (e *tokencache.Entry, err error) {
	id := uuid.NewString()
	ctx, end := runtime.StartSpan(correlation.With(ctx, id), credName+".GetToken", c.tracing.Tracer, nil)
	defer func() { end(err) }()
	defer c.keys.prepare()
	claims, err := entra.MergeClaims(r.Claims, r.CAE)
	if err != nil {
		return nil, newAuthenticationError(err, nil)
	}
	key := r.Key
	x := &exchange{
		request:       entra.Request{Resource: key.Resource, TokenType: tokenType(key.Bound), Claims: claims},
		correlationID: id,
	}
	token, err := c.requests.exchange(ctx, x)
	if err != nil && key.Bound && !r.NoBearer {
		if bearer, ok := c.bearerInstead(ctx, x, r.Claims, err); ok {
			token, err, key.Bound = bearer, nil, false
		}
	}
	if err != nil {
		err = explain(flight.Explain(ctx, err), x, c.demanding || r.NoBearer)
		eventlog.Writef(ctx, EventAuthentication, "no token for %s: %v", key.Resource, err)
		return nil, err
	}
	binding := x.transport.Binding()
	eventlog.Writef(ctx, EventAuthentication, "got a %s token for %s with binding %s",
		x.request.TokenType, key.Resource, eventlog.Mask(binding.Thumbprint()))
	e = c.tokens.NewEntry(key, token.Value, token.Life, token.Refresh, binding)
	c.tokens.Put(e)
	return e, nil
}

func tokenType(bound bool) string {
	if bound {
		return entra.TypeMtlsPoP
	}
	return entra.TypeBearer
}

// refresh replaces a token that is still valid, in the background; if that fails, it goes on being used, and the next attempt is
// half a minute off.
func (c *ImdsV2MtlsCredential) refresh(r tokencache.Request) {
	c.tokens.Refresh(r, func(ctx context.Context) (*tokencache.Entry, error) {
		e, err := c.authenticate(ctx, r)
		if err != nil {
			eventlog.Writef(
				ctx,
				EventAuthentication,
				"refreshing the token for %s failed, the old one is used on: %v",
				r.Resource,
				err,
			)
		}
		return e, err
	})
}

// Close ends background refreshes and closes idle connections. A closed credential still gets tokens, without those.
func (c *ImdsV2MtlsCredential) Close() error {
	if !c.made() {
		return nil
	}
	c.closed.Store(true)
	c.tokens.CancelUnwanted()
	c.closeConnections()
	return nil
}

// closeConnections closes idle connections: those over mutual TLS, those of bearer clients and those to IMDS.
func (c *ImdsV2MtlsCredential) closeConnections() {
	for _, closeIdle := range c.closeIdle {
		closeIdle()
	}
}

var _ azcore.TokenCredential = (*ImdsV2MtlsCredential)(nil)
