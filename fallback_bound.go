package azmtls

import (
	"context"
	"errors"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
)

// GetBoundToken is [ImdsV2MtlsCredential.GetBoundToken]. While azidentity serves, the error is
// [ErrTokenBindingUnsupported], with the cause.
func (c *ManagedIdentityCredential) GetBoundToken(
	ctx context.Context,
	opts policy.TokenRequestOptions,
) (azcore.AccessToken, *mtls.Binding, error) {
	var r tokencache.Request
	if err := c.fill(ctx, &opts, true, &r); err != nil {
		return azcore.AccessToken{}, nil, err
	}
	e, err := c.getBound(ctx, r)
	if err != nil {
		return azcore.AccessToken{}, nil, err
	}
	return e.Token, e.Binding, nil
}

// getBound returns a token of IMDS v2.
func (c *ManagedIdentityCredential) getBound(ctx context.Context, r tokencache.Request) (*tokencache.Entry, error) {
	if e := c.v2.atHand(ctx, &r); e != nil {
		return e, nil
	}
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	if c.elsewhere() {
		return nil, unbound(errors.New(c.sourceText()))
	}
	cause := c.whyNot(ctx, r)
	if cause == nil {
		e, err := c.v2.token(ctx, r)
		if err == nil {
			return e, nil
		}
		if cause, _ = c.outage.look(); cause == nil {
			return nil, err // no outage came of it
		}
	}
	return nil, unbound(cause)
}

// unboundError is why there is no bound token where azidentity serves.
type unboundError struct{ cause error }

func unbound(cause error) error {
	cause = withoutUnavailable(cause)
	if explained, ok := cause.(*AuthenticationError); ok {
		cause = explained.err // it is explained anew
	}
	return newAuthenticationError(&unboundError{cause}, nil)
}

func (e *unboundError) Error() string {
	return "azidentity serves instead of IMDS v2, and its tokens are not bound: " + e.cause.Error()
}

func (e *unboundError) Unwrap() []error { return []error{ErrTokenBindingUnsupported, e.cause} }

// current is what a bound client sends in the place of a token that was issued here: see
// [ImdsV2MtlsCredential.current].
func (c *ManagedIdentityCredential) current(ctx context.Context, issued *tokencache.Entry) (*tokencache.Entry, error) {
	if c.v2.tokens.Valid(issued) {
		return issued, nil
	}
	return c.get(ctx, tokencache.Request{Key: issued.Key, NoBearer: c.v2.tokenType == TokenTypeMtlsPoP})
}

// BindClientOptions is [ImdsV2MtlsCredential.BindClientOptions]. A request with a token of azidentity goes out as one
// with a token of another credential: as bearer, over the caller's own Transport.
func (c *ManagedIdentityCredential) BindClientOptions(options *azcore.ClientOptions) {
	c.inner().BindClientOptions(options)
}

// Client is [ImdsV2MtlsCredential.Client]. With a token of azidentity it sends requests as bearer.
func (c *ManagedIdentityCredential) Client(scope string, hosts ...string) *http.Client {
	return c.inner().clientWith(c, scope, hosts)
}
