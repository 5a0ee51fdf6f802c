package azmtls

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
)

const (
	credName = "ImdsV2MtlsCredential"
	module   = "github.com/azmtls/azmtls"
	version  = "v0.1.0"
)

// ImdsV2MtlsCredential authenticates a managed identity of an Azure virtual machine over mutual TLS, with a certificate
// that the instance metadata service (IMDS v2) issues and that the credential replaces by itself when it goes bad. It
// is safe for concurrent use. See the package documentation.
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
	record    *record
	closed    atomic.Bool // no work in the background any more
	closeIdle []func()
	landed    func(context.Context, tokencache.Request, error) // told how requests ended, those that nobody waits for too
}

// NewImdsV2MtlsCredential creates an ImdsV2MtlsCredential. Pass nil to accept default options: the system-assigned
// identity, bearer tokens over mutual TLS for any client and proof-of-possession tokens for bound ones. It makes no
// network call.
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
	id, err := imds.IDOf(o.ID)
	if err != nil {
		return nil, err
	}
	service, err := imds.New(imds.Options{
		ClientOptions: o.ClientOptions, ID: id, Clock: o.Cache.Clock,
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
		record:    newRecord(o.Cache.Clock, o.Observer),
		landed:    func(context.Context, tokencache.Request, error) {},
	}
	c.keys = newKeySource(o.KeyProvider, o.MinBindingStrength, &c.closed)
	issuer := &issuer{imds: service, keys: c.keys, attestation: o.Attestation, tracing: c.tracing}
	c.bindings = &bindings{
		cache: o.Cache,
		source: mtls.Source{
			Alias: id.Alias(o.Attestation != nil), Endpoint: service.Endpoint(),
			Keys: o.KeyProvider, MinStrength: o.MinBindingStrength,
			Store: o.Store, Mint: issuer.mint, Identify: issuer.identify,
		},
		template: o.MTLSTransport,
		tracing:  c.tracing,
		closed:   &c.closed,
	}
	c.requests = newTokenClient(o.ClientOptions, c.bindings)
	c.clients = newBinder(c.tokens, c.bindings, c.current, c.record.observer)
	c.closeIdle = []func(){c.bindings.closeIdle, c.clients.plain.CloseIdleConnections, service.CloseIdle}
	return c, nil
}

// GetToken returns a token for exactly one scope, for example "https://vault.azure.net/.default" or the bare resource.
// This method is called automatically by Azure SDK clients.
//
// With EnableCAE the token has the client capability "cp1"; Claims go to Entra and bypass cached tokens. Where there is
// no IMDS v2, or where it certifies nothing that this machine has, the error is azidentity's credential-unavailable
// error, so that a ChainedTokenCredential goes on; every other error is an *[AuthenticationError]. With
// TokenTypeMtlsPoP or a MinBindingStrength the caller has demanded what IMDS v2 alone gives: then its refusal to
// certify is an *[AuthenticationError] too.
func (c *ImdsV2MtlsCredential) GetToken(
	ctx context.Context,
	opts policy.TokenRequestOptions,
) (azcore.AccessToken, error) {
	e, err := c.get(ctx, &opts, false)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return e.Token, nil
}

// GetBoundToken returns a proof-of-possession token, whatever the TokenType of the credential, and the binding that it
// is bound to: for programs that are neither Azure SDK clients nor use net/http, a gRPC client say. The token is of use
// only on connections that present Binding.Certificate, with the scheme mtls_pop. The two belong together: ask for both
// again, and connect anew, when the binding is another one than before. A peer's refusal of the binding is told by
// [ImdsV2MtlsCredential.RemoveBadCert].
//
// Options, caching, recovery and errors are those of [ImdsV2MtlsCredential.GetToken]. The error is
// [ErrTokenBindingUnsupported] where Entra says that it binds no tokens for the resource: a bearer token never takes
// the place.
func (c *ImdsV2MtlsCredential) GetBoundToken(
	ctx context.Context,
	opts policy.TokenRequestOptions,
) (azcore.AccessToken, *mtls.Binding, error) {
	e, err := c.get(ctx, &opts, true)
	if err != nil {
		return azcore.AccessToken{}, nil, err
	}
	return e.Token, e.Binding, nil
}

// get returns a token: a bound one if that is demanded, else of the type that this call gets.
func (c *ImdsV2MtlsCredential) get(
	ctx context.Context,
	opts *policy.TokenRequestOptions,
	demanded bool,
) (*tokencache.Entry, error) {
	var r tokencache.Request
	if err := c.fill(ctx, opts, demanded, &r); err != nil {
		return nil, err
	}
	if e := c.atHand(ctx, &r); e != nil {
		return e, nil
	}
	return c.token(ctx, r)
}

// fill fills in what a call asks for. That goes by reference, as the options do: it costs a fifth of a cached answer to
// copy them from function to function.
func (c *ImdsV2MtlsCredential) fill(
	ctx context.Context,
	opts *policy.TokenRequestOptions,
	demanded bool,
	r *tokencache.Request,
) error {
	if err := c.check(ctx, opts); err != nil {
		return inputError(err)
	}
	resource := resourceOf(opts.Scopes[0])
	bound := demanded
	if !demanded {
		var err error
		if bound, err = c.wantsBound(ctx, resource, opts.EnableCAE); err != nil {
			return inputError(err)
		}
	}
	r.Resource, r.Bound, r.CAE = resource, bound, opts.EnableCAE
	r.Claims, r.NoBearer = opts.Claims, demanded || c.tokenType == TokenTypeMtlsPoP
	return nil
}

// atHand returns the token that the cache has, nil if it has none, or may not give it out because of claims. It sees to
// it that the token is refreshed in time.
func (c *ImdsV2MtlsCredential) atHand(ctx context.Context, r *tokencache.Request) *tokencache.Entry {
	if r.Claims != "" {
		return nil
	}
	e, refresh := c.tokens.Get(r.Key)
	if e == nil {
		return nil
	}
	if refresh && !c.closed.Load() {
		// If that fails the token goes on being used, and the next attempt is half a minute off.
		c.refresh(ctx, *r, outcomes{eventlog.TokenRefreshed, eventlog.RefreshFailed})
	}
	c.record.cached.Inc()
	return e
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
