package azmtls

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/oauth"
)

// grants remembers for which resources Entra binds no tokens, so that TokenTypeAuto gets proof of possession where it
// can be had, and bearer tokens elsewhere.
type grants struct {
	clock *clock.Clock

	mu        sync.RWMutex
	tenant    time.Duration // until when no resource gets bound tokens; times are the clock's boot time
	resources map[string]grant
}

// grant is what was found of one resource.
type grant struct {
	until  time.Duration
	bearer bool // it gets bearer tokens; otherwise it gets none of either kind
}

const (
	grantLife = time.Hour // about
	maxGrants = 1000
)

// bearer reports whether the resource gets bearer tokens where bound ones are wanted.
func (g *grants) bearer(resource string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.tenant == 0 && len(g.resources) == 0 {
		return false
	}
	now := g.clock.Boot()
	found := g.resources[resource]
	return now < g.tenant || (found.bearer && now < found.until)
}

// status returns which resources get bearer tokens where bound ones are wanted, by name.
func (g *grants) status() []BearerStatus {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var found []BearerStatus
	now, wall := g.clock.Boot(), g.clock.Wall()
	if now < g.tenant {
		found = append(found, BearerStatus{Until: wall.Add(g.tenant - now)})
	}
	for _, resource := range slices.Sorted(maps.Keys(g.resources)) {
		if r := g.resources[resource]; r.bearer && now < r.until {
			found = append(found, BearerStatus{Resource: resource, Until: wall.Add(r.until - now)})
		}
	}
	return found
}

// declined reports whether it was found out not long ago that a bearer token cannot be had either.
func (g *grants) declined(resource string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	found := g.resources[resource]
	return !found.bearer && g.clock.Boot() < found.until
}

// remember notes what was found of a resource.
func (g *grants) remember(resource string, bearer bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.resources == nil {
		g.resources = map[string]grant{}
	}
	now := g.clock.Boot()
	for other, found := range g.resources {
		if now >= found.until || len(g.resources) >= maxGrants {
			delete(g.resources, other)
		}
	}
	g.resources[resource] = grant{until: now + clock.Spread(grantLife), bearer: bearer}
}

// rememberTenant notes that the tenant binds no tokens at all.
func (g *grants) rememberTenant() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tenant = g.clock.Boot() + clock.Spread(grantLife)
}

const (
	unbindableResource = "AADSTS392196"
	unbindableTenant   = "AADSTS3921996"
)

// unbindable reports that Entra binds no tokens for the resource, or for the tenant.
func unbindable(e *oauth.Error) bool { return e.Has(unbindableResource, unbindableTenant) }

// answers are errors that are Entra's answer to who asks for what. They do not mean that the token cannot be bound.
var (
	answers = []string{
		"interaction_required", "invalid_scope", "unauthorized_client", "access_denied", "temporarily_unavailable",
	}
	answerCodes = regexp.MustCompile(`^AADSTS(70011|500011|700016|7000229|530\d\d|50196)$`)
)

// mayGrantBearer reports whether the error of a request for a bound token is one after which a bearer token may still
// be had: a definite refusal, which says neither that nor why not.
func mayGrantBearer(err error) bool {
	e, ok := errors.AsType[*oauth.Error](err)
	switch {
	case !ok || e.Claims:
		return false
	case e.StatusCode != http.StatusBadRequest && (e.StatusCode != http.StatusUnauthorized || e.Code == ""):
		return false
	}
	return !slices.Contains(answers, e.Code) && !slices.ContainsFunc(e.AADSTS, answerCodes.MatchString)
}

// bearerInstead asks for a bearer token where Entra declined a bound one, with the same binding, if that may help.
func (c *ImdsV2MtlsCredential) bearerInstead(
	ctx context.Context, x *exchange, claims string, declined error,
) (token entra.Token, ok bool) {
	resource := x.request.Resource
	unsupported := errors.Is(declined, ErrTokenBindingUnsupported)
	if !unsupported && (claims != "" || !mayGrantBearer(declined) || c.grants.declined(resource)) {
		return token, false
	}
	bound := *x
	x.request.TokenType = entra.TypeBearer
	token, err := c.requests.exchange(ctx, x)
	code := oauthCode(declined)
	switch {
	case unsupported && code == unbindableTenant:
		c.grants.rememberTenant()
	case unsupported || err == nil:
		c.grants.remember(resource, true)
	case failure.Is[*oauth.Error](err):
		c.grants.remember(resource, false)
	}
	if err != nil {
		*x = bound // the first error stands
		return token, false
	}
	eventlog.Emit(ctx, eventlog.Event{Step: eventlog.BearerGranted, Resource: resource, Err: declined})
	return token, true
}
