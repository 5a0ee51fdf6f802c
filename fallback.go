package azmtls

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/internal/tokencache"
)

const fallbackName = "ManagedIdentityCredential"

// ManagedIdentityCredentialOptions contains optional parameters for [NewManagedIdentityCredential]. The ClientOptions,
// their Transport too, and the ID serve azidentity's credential as well, so that a literal of azidentity's type of this
// name fits.
type ManagedIdentityCredentialOptions ImdsV2MtlsCredentialOptions

// ManagedIdentityCredential is an [ImdsV2MtlsCredential] on machines that get certificates from IMDS v2, and
// azidentity's credential of this name on all others, so that one line works everywhere. It is safe for concurrent use.
//
// A call that IMDS v2 cannot serve, whatever the cause, is served by azidentity: with a bearer token of IMDS v1. From
// then on it is azidentity's turn at once; only tokens of IMDS v2 that are at hand are used on. IMDS v2 is asked again
// in the background, by calls that come half an hour after it said that it has no certificates for this machine, or a
// minute after any other failure. When it has a token again, it serves again. A change either way is logged once. Where
// the environment names another source of tokens that azidentity knows, App Service, Azure Arc or Service Fabric for
// example, IMDS v2 is not asked. With [TokenTypeMtlsPoP] or a MinBindingStrength azidentity is not asked, since its
// tokens are not bound to anything.
//
// An azidentity.ChainedTokenCredential of an ImdsV2MtlsCredential and azidentity's does less: it stays with the
// credential that worked first, so that a machine whose IMDS was slow at its first call never gets a certificate,
// unless its option RetrySources is set, with which IMDS v2 is asked, and waited for, by every call. It goes on only
// after a credential-unavailable error, and keeps the text of an error alone.
type ManagedIdentityCredential struct {
	v2     *ImdsV2MtlsCredential
	v1     *v1Credential          // nil: what it has does not do
	source managedidentity.Source // of tokens, as the environment says
	outage outage
}

// NewManagedIdentityCredential creates a ManagedIdentityCredential. Pass nil to accept default options: the
// system-assigned identity, bearer tokens for any client and, where IMDS v2 serves, proof-of-possession tokens for
// bound ones. It makes no network call.
func NewManagedIdentityCredential(options *ManagedIdentityCredentialOptions) (*ManagedIdentityCredential, error) {
	var o ImdsV2MtlsCredentialOptions
	if options != nil {
		o = ImdsV2MtlsCredentialOptions(*options)
	}
	c, err := newFallback(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fallbackName, err)
	}
	return c, nil
}

func newFallback(o ImdsV2MtlsCredentialOptions) (*ManagedIdentityCredential, error) {
	v2, err := newCredential(o)
	if err != nil {
		return nil, err
	}
	c := &ManagedIdentityCredential{
		v2: v2, outage: outage{clock: v2.bindings.cache.Clock, observer: v2.record.observer},
	}
	if c.source, err = managedidentity.GetSource(); err != nil {
		return nil, err
	}
	v2.clients.current = c.current
	if v2.demanding {
		return c, nil
	}
	if c.v1, err = newV1Credential(o, c.outage.clock, v2.tracing); err != nil {
		return nil, err
	}
	v2.landed = c.outage.note
	return c, nil
}

// GetToken returns a token for exactly one scope, for example "https://vault.azure.net/.default" or the bare resource.
// This method is called automatically by Azure SDK clients.
//
// Where neither IMDS v2 nor azidentity has a token, the error holds those of both, and errors.As finds each. A chain of
// azidentity goes on after it only if azidentity's own part says that the credential is unavailable. Where nobody
// answers at the address of IMDS, or somebody else, azidentity is not asked, since it takes up to a minute and a half
// there: the credential is unavailable at once.
//
// IMDS v2 is waited for 10 s, or half of the time that ctx leaves if that is less, and azidentity 30 s.
func (c *ManagedIdentityCredential) GetToken(
	ctx context.Context,
	opts policy.TokenRequestOptions,
) (azcore.AccessToken, error) {
	var r tokencache.Request
	if err := c.fill(ctx, &opts, false, &r); err != nil {
		return azcore.AccessToken{}, err
	}
	e, err := c.get(ctx, r)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return e.Token, nil
}

// fill fills in what a call asks for.
func (c *ManagedIdentityCredential) fill(
	ctx context.Context,
	opts *policy.TokenRequestOptions,
	bound bool,
	r *tokencache.Request,
) error {
	if c.inner() == nil {
		return inputError(errNotFallback)
	}
	return c.v2.fill(ctx, opts, bound, r)
}

// get returns a token of whoever has one.
func (c *ManagedIdentityCredential) get(ctx context.Context, r tokencache.Request) (*tokencache.Entry, error) {
	if e := c.v2.atHand(ctx, &r); e != nil {
		return e, nil
	}
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	switch {
	case c.elsewhere() && c.v1 == nil:
		return nil, azidentity.NewCredentialUnavailableError(
			fallbackName + ": " + c.sourceText() + ", which has none that TokenType and MinBindingStrength allow.",
		)
	case c.elsewhere():
		token, err := c.v1.token(ctx, r)
		return fromV1(r, token), err
	case c.v1 == nil:
		return c.v2.token(ctx, r)
	}
	cause := c.whyNot(ctx, r)
	if cause == nil {
		e, err := c.ask(ctx, r)
		if err == nil || ctx.Err() != nil || meaningOf(r, err) == nobodyHere {
			return e, err
		}
		cause = err
	}
	token, err := c.v1.token(ctx, r)
	if err != nil {
		return nil, &neitherError{v2: withoutUnavailable(cause), v1: err}
	}
	if out := c.outage.status(); out != nil && (token.RefreshOn.IsZero() || out.Next.Before(token.RefreshOn)) {
		token.RefreshOn = out.Next // an SDK client that keeps the token comes back when it is IMDS v2's turn
	}
	return fromV1(r, token), nil
}

// fromV1 returns a token of azidentity as the answer to a request.
func fromV1(r tokencache.Request, token azcore.AccessToken) *tokencache.Entry {
	r.Bound = false
	return &tokencache.Entry{Key: r.Key, Token: token}
}

// ask asks IMDS v2, and waits for it as long as a call may.
func (c *ManagedIdentityCredential) ask(ctx context.Context, r tokencache.Request) (*tokencache.Entry, error) {
	limit := limits.V2
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	limited, _, cancel := c.outage.clock.WithLimit(ctx, limit)
	defer cancel()
	e, err := c.v2.token(limited, r)
	if err == nil || ctx.Err() != nil {
		return e, err
	}
	if e := c.v2.atHand(ctx, &r); e != nil {
		return e, nil // it landed just now
	}
	c.outage.note(ctx, r, err) // of a request that goes on, this is all that is known so far
	return nil, err
}

// whyNot returns why IMDS v2 is not asked for this request, nil if it is. It has it asked in the background when it is
// time to.
func (c *ManagedIdentityCredential) whyNot(ctx context.Context, r tokencache.Request) (cause error) {
	cause, due := c.outage.look()
	switch {
	case due && c.v2.closed.Load(): // no work in the background
		return nil
	case due:
		c.v2.refresh(ctx, r, outcomes{eventlog.TokenObtained, eventlog.TokenFailed})
	}
	return cause
}

// Status is [ImdsV2MtlsCredential.Status], and says whether azidentity serves, and why.
func (c *ManagedIdentityCredential) Status() Status {
	s := c.inner().Status()
	switch {
	case c.inner() == nil:
	case c.elsewhere():
		s.Fallback = &FallbackStatus{Cause: c.sourceText()}
	default:
		s.Fallback = c.outage.status()
	}
	return s
}

// Renew is [ImdsV2MtlsCredential.Renew]. If azidentity serves, the next call has IMDS v2 asked again when it worked.
func (c *ManagedIdentityCredential) Renew(ctx context.Context) error {
	if c.inner() == nil {
		return inputError(errNotFallback)
	}
	err := c.v2.Renew(ctx)
	if err == nil {
		c.outage.hasten()
	}
	return err
}

var errNotFallback = errors.New("the credential was not made by NewManagedIdentityCredential")

// inner returns the credential for IMDS v2, nil if this one is none.
func (c *ManagedIdentityCredential) inner() *ImdsV2MtlsCredential {
	if c == nil {
		return nil
	}
	return c.v2
}

// elsewhere reports whether tokens come from another source than IMDS.
func (c *ManagedIdentityCredential) elsewhere() bool {
	return c.source != managedidentity.DefaultToIMDS
}

func (c *ManagedIdentityCredential) sourceText() string {
	return fmt.Sprintf("the environment says that tokens come from %s", c.source)
}

// Close ends work in the background and closes idle connections. A closed credential still gets tokens, without those.
func (c *ManagedIdentityCredential) Close() error {
	if c.inner() != nil && c.v1 != nil {
		c.v1.flights.CancelUnwanted()
	}
	return c.inner().Close()
}

var _ azcore.TokenCredential = (*ManagedIdentityCredential)(nil)
