package azmtls

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
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
	options  ImdsV2MtlsCredentialOptions
	imds     *imds.Client
	source   mtls.Source
	pools    pools
	pipeline runtime.Pipeline
	tracer   tracing.Tracer
	tokens   *tokencache.Cache
	now      func() time.Time

	unbindable sync.Map    // resources for which Entra binds no tokens (AADSTS392196)
	refused    atomic.Bool // a resource has refused a binding

	background context.Context // of the refreshes, until Close
	close      context.CancelFunc
}

// NewImdsV2MtlsCredential creates an ImdsV2MtlsCredential. Pass nil to accept default options: the system-assigned identity,
// bearer tokens over mutual TLS for any client and proof-of-possession tokens for bound ones. It makes no network call.
func NewImdsV2MtlsCredential(options *ImdsV2MtlsCredentialOptions) (*ImdsV2MtlsCredential, error) {
	return newCredential(options, environment{})
}

// environment is what tests replace.
type environment struct {
	now   func() time.Time                           // nil: the real clock
	sleep func(context.Context, time.Duration) error // nil: a real timer
}

func newCredential(options *ImdsV2MtlsCredentialOptions, env environment) (*ImdsV2MtlsCredential, error) {
	c := &ImdsV2MtlsCredential{now: env.now, tokens: tokencache.New(env.now)}
	if c.now == nil {
		c.now = time.Now
	}
	if options != nil {
		c.options = *options
	}
	o := &c.options
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", credName, err)
	}
	o.setDefaults()
	id, err := identity(o.ID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", credName, err)
	}
	o.Logging.IncludeBody = false // bodies hold certificate requests and tokens
	o.APIVersion = ""             // is for the services of SDK clients
	c.imds, err = imds.New(imds.Options{ClientOptions: o.ClientOptions, ID: id, Sleep: env.sleep})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", credName, err)
	}
	c.source = mtls.Source{Alias: o.alias(id), Endpoint: c.imds.Endpoint(), Keys: o.KeyProvider, MinStrength: o.MinBindingStrength, Store: o.Store, Mint: c.mint}
	c.pools.template = o.MTLSTransport
	c.pipeline = c.newPipeline()
	c.tracer = o.TracingProvider.NewTracer(credName, version)
	c.background, c.close = context.WithCancel(context.Background())
	return c, nil
}

// GetToken returns a token for exactly one scope, for example "https://vault.azure.net/.default" or the bare resource. This
// method is called automatically by Azure SDK clients.
//
// With EnableCAE the token has the client capability "cp1"; Claims go to Entra and bypass cached tokens. When IMDS v2 is not
// there the error is azidentity's credential-unavailable error, so that a ChainedTokenCredential goes on; every other
// error is an *[AuthenticationError].
func (c *ImdsV2MtlsCredential) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(opts.Scopes) != 1 {
		return azcore.AccessToken{}, newAuthenticationError(fmt.Errorf("GetToken takes exactly one scope, got %d", len(opts.Scopes)), nil)
	}
	resource := strings.TrimSuffix(opts.Scopes[0], "/.default")
	key := tokencache.Key{Resource: resource, Bound: c.wantsBound(ctx, resource), CAE: opts.EnableCAE}
	if opts.Claims == "" {
		if e, refresh := c.tokens.Get(key); e != nil {
			if refresh {
				go c.refresh(key)
			}
			return e.Token, nil
		}
	}
	e, err := c.token(ctx, key, opts.Claims)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return e.Token, nil
}

// checkResource refuses what cannot be the resource of one scope.
func checkResource(resource string) error {
	switch {
	case resource == "":
		return errors.New(`the scope names no resource; it should be like "https://vault.azure.net/.default"`)
	case strings.ContainsFunc(resource, unicode.IsSpace):
		return errors.New("the scope contains white space; GetToken takes exactly one scope")
	}
	return nil
}

// wantsBound decides which type of token this call gets: one that is bound to the certificate, or a bearer token.
func (c *ImdsV2MtlsCredential) wantsBound(ctx context.Context, resource string) bool {
	switch c.options.TokenType {
	case TokenTypeMtlsPoP:
		return true
	case TokenTypeAuto:
		if c.bound(ctx) != nil {
			_, unbindable := c.unbindable.Load(resource)
			return !unbindable
		}
	}
	return false
}

// token gets a token that the cache does not have, or may not give out because of claims. Callers who want the same one at the
// same time share it.
func (c *ImdsV2MtlsCredential) token(ctx context.Context, key tokencache.Key, claims string) (*tokencache.Entry, error) {
	if err := checkResource(key.Resource); err != nil {
		return nil, newAuthenticationError(err, nil)
	}
	merged, err := entra.MergeClaims(claims, key.CAE)
	if err != nil {
		return nil, newAuthenticationError(err, nil)
	}
	e, err := c.tokens.Share(ctx, key, claims, func(ctx context.Context) (*tokencache.Entry, error) {
		if claims == "" {
			if e, _ := c.tokens.Get(key); e != nil {
				return e, nil // it came between this caller's look into the cache and its turn
			}
		}
		return c.authenticate(ctx, key, merged)
	})
	if err != nil && !explained(err) {
		err = newAuthenticationError(err, nil) // this caller stopped waiting
	}
	return e, err
}

// authenticate asks Entra for a token, over the pipeline: recovery, retry, binding, mutual TLS.
func (c *ImdsV2MtlsCredential) authenticate(ctx context.Context, key tokencache.Key, claims string) (e *tokencache.Entry, err error) {
	ctx, end := runtime.StartSpan(ctx, credName+".GetToken", c.tracer, nil)
	defer func() { end(err) }()
	x := &exchange{request: entra.Request{Resource: key.Resource, TokenType: tokenType(key.Bound), Claims: claims}}
	token, err := c.exchange(ctx, x)
	if errors.Is(err, ErrTokenBindingUnsupported) && c.options.TokenType == TokenTypeAuto && key.Bound {
		mtls.Logf(EventAuthentication, "Entra binds no tokens for %s (AADSTS392196): bearer tokens for it from now on", key.Resource)
		c.unbindable.Store(key.Resource, nil)
		key.Bound, x.request.TokenType = false, entra.TypeBearer
		token, err = c.exchange(ctx, x)
	}
	if err != nil {
		err = c.explain(err, x)
		mtls.Logf(EventAuthentication, "no token for %s: %v", key.Resource, err)
		return nil, err
	}
	mtls.Logf(EventAuthentication, "got a %s token for %s with binding %s", x.request.TokenType, key.Resource, mtls.Mask(x.binding.Thumbprint()))
	e = c.tokens.NewEntry(key, azcore.AccessToken{Token: token.Value, ExpiresOn: token.ExpiresOn, RefreshOn: token.RefreshOn}, x.binding)
	c.keep(e)
	return e, nil
}

// keep caches a token, unless its binding serves one call only, and remembers a bound one as ours.
func (c *ImdsV2MtlsCredential) keep(e *tokencache.Entry) {
	if e.Binding.Cacheable(c.now()) {
		c.tokens.Put(e)
	}
	if e.Key.Bound {
		c.tokens.Remember(e)
	}
}

func tokenType(bound bool) string {
	if bound {
		return entra.TypeMtlsPoP
	}
	return entra.TypeBearer
}

// refresh replaces a token that is still valid; if that fails, it goes on being used, and the next attempt is half a minute off.
func (c *ImdsV2MtlsCredential) refresh(key tokencache.Key) {
	merged, err := entra.MergeClaims("", key.CAE)
	if err == nil {
		_, err = c.authenticate(c.background, key, merged)
	}
	if err != nil {
		mtls.Logf(EventAuthentication, "refreshing the token for %s failed, the old one is used on: %v", key.Resource, err)
	}
}

// Close ends background refreshes and closes idle connections. A closed credential still gets tokens, without those.
func (c *ImdsV2MtlsCredential) Close() error {
	c.close()
	c.pools.closeIdle()
	return nil
}

var _ azcore.TokenCredential = (*ImdsV2MtlsCredential)(nil)
