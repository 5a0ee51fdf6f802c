package azmtls_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// requests returns how often IMDS v2 and Entra were asked.
func (m *managed) requests() int {
	c := m.server.Counts()
	return c.Metadata + c.Issue + c.Token
}

// slowKeys is a provider that takes until it is released.
type slowKeys struct {
	keys
	release chan struct{}
	asked   atomic.Bool
}

func (k *slowKeys) Key(ctx context.Context) (mtls.Key, error) {
	k.asked.Store(true)
	select {
	case <-k.release:
		return k.keys.Key(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fallbacks are the changes of who serves, as an observer is told.
type fallbacks struct {
	mu   sync.Mutex
	list []azmtls.Step
}

func (s *fallbacks) observe(o *azmtls.ManagedIdentityCredentialOptions) {
	o.Observer = func(e azmtls.Event) {
		if e.Step == azmtls.StepFallback || e.Step == azmtls.StepFallbackOver {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.list = append(s.list, e.Step)
		}
	}
}

func (s *fallbacks) seen() []azmtls.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// An outage ends when v2 has a token again, and not before v2 was asked again: in the background, by a call, half an
// hour after IMDS said that it has no certificates, a minute after any other failure. It is logged once when it begins,
// and once when it ends.
func TestOutageEnds(t *testing.T) {
	refused := func(status int) imdstest.Fault {
		return imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: status, Body: `{"error":"x"}`}}
	}
	const short, long = time.Minute, 30 * time.Minute
	for name, test := range map[string]struct {
		fault imdstest.Fault
		pause time.Duration
	}{
		"no IMDS v2":      {noV2, long},
		"certificate 400": {refused(400), long},
		"certificate 403": {refused(403), long},
		"certificate 404": {refused(404), long},
		"certificate 405": {refused(405), long},
		"certificate 501": {refused(501), long},
		"certificate 500": {refused(500), short},
		"metadata 400":    {imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: 400}}, short},
		"Entra":           {entraFails, short},
		"not a signature": {imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}}, short},
	} {
		t.Run(name, func(t *testing.T) {
			var changes fallbacks
			m := newManaged(t, imdstest.Options{}, changes.observe)
			remove := m.server.Inject(test.fault)
			start := m.clock.Boot()
			require.Equal(t, 1, m.servedBy())
			require.Equal(t, []azmtls.Step{azmtls.StepFallback}, changes.seen())
			asked := m.requests()
			earliest, latest := test.pause, test.pause
			if test.pause == long {
				earliest, latest = 27*time.Minute, 33*time.Minute
			}
			m.clock.Advance(start + earliest - time.Second - m.clock.Boot())
			for range 3 {
				require.Equal(t, 1, m.servedBy())
			}
			require.Equal(t, asked, m.requests())
			m.clock.Advance(latest - earliest + 20*time.Second) // the failure came after some retries
			require.Equal(t, asked, m.requests(), "no timer asks")

			remove()
			require.Equal(t, 1, m.servedBy(), "it does not wait")
			require.Eventually(t, func() bool { return m.servedBy() == 2 }, 10*time.Second, time.Millisecond)
			both := []azmtls.Step{azmtls.StepFallback, azmtls.StepFallbackOver}
			told := func() bool { return slices.Equal(both, changes.seen()) } // once what was begun in the background has landed
			require.Eventually(t, told, 10*time.Second, time.Millisecond)
			m.noRejections()
		})
	}
}

// An outage that goes on is not logged again, and v2 is left alone for as long again.
func TestOutageGoesOn(t *testing.T) {
	var changes fallbacks
	m := newManaged(t, imdstest.Options{TokenLifetime: 24 * time.Hour}, changes.observe)
	m.server.Inject(noV2)
	for n := range 3 {
		require.Eventually(t, func() bool { // what was begun in the background has ended
			token, err := m.token(newScope())
			require.NoError(t, err)
			return token.RefreshOn.Sub(m.clock.Wall()) >= 27*time.Minute
		}, 10*time.Second, time.Millisecond)
		require.Equal(t, n+1, m.server.Counts().Metadata)
		m.clock.Advance(33 * time.Minute)
	}
	require.Equal(t, []azmtls.Step{azmtls.StepFallback}, changes.seen())
}

// While v2 is being asked again, others that are due do not ask too.
func TestOutageIsProbedOnce(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	remove := m.server.Inject(entraFails)
	require.Equal(t, 1, m.servedBy())
	since := m.cred.Status().Fallback.Since
	remove()
	m.clock.Advance(time.Minute)
	m.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
	asked := m.server.Counts().Token
	for range 5 {
		require.Equal(t, 1, m.servedBy())
	}
	require.Eventually(t, func() bool { return m.server.Counts().Token == asked+1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, 1, m.servedBy())
	require.Equal(t, asked+1, m.server.Counts().Token)
	require.Equal(t, since, m.cred.Status().Fallback.Since)
}

// v2 gets 10 s of a call, or half of what the caller has left. What it is at goes on, and when it lands well, v2
// serves.
func TestV2IsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct{ deadline, limit time.Duration }{
		"10 s":                   {0, 10 * time.Second},
		"10 s of a long time":    {time.Hour, 10 * time.Second},
		"half of a shorter time": {16 * time.Second, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			provider := &slowKeys{release: make(chan struct{})}
			m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) { o.KeyProvider = provider })
			ctx := t.Context()
			if test.deadline > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, test.deadline)
				defer cancel()
			}
			scope := newScope()
			call := m.get(ctx, scope)
			require.Eventually(t, func() bool { return provider.asked.Load() }, 10*time.Second, time.Millisecond)
			m.clock.Advance(test.limit - time.Second)
			require.Empty(t, call, "it goes on waiting")
			m.clock.Advance(time.Second)
			first := <-call
			require.NoError(t, first.err)
			require.Equal(t, 1, m.server.Counts().V1Issued)
			require.Equal(t, 1, m.servedBy(), "at once")

			close(provider.release)
			require.Eventually(t, func() bool { return m.servedBy() == 2 }, 10*time.Second, time.Millisecond)
			again, err := m.token(scope)
			require.NoError(t, err)
			require.NotEqual(t, first.token.Token, again.Token, "that of v2 is at hand")
			require.Equal(t, 1, m.server.Counts().Metadata)
		})
	}
}

// What v2 was at may also land badly: then that is the cause.
func TestV2LandsBadly(t *testing.T) {
	provider := &slowKeys{release: make(chan struct{})}
	m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) { o.KeyProvider = provider })
	m.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 403}})
	call := m.get(t.Context(), newScope())
	require.Eventually(t, func() bool { return provider.asked.Load() }, 10*time.Second, time.Millisecond)
	m.clock.Advance(10 * time.Second)
	require.NoError(t, (<-call).err)
	m.server.Inject(noIdentity)
	_, err := m.token(newScope())
	require.ErrorContains(t, err, "no answer within 10s")
	close(provider.release)
	require.Eventually(t, func() bool {
		_, err := m.token(newScope())
		return strings.Contains(err.Error(), "403")
	}, 10*time.Second, time.Millisecond)
	asked := m.requests()
	m.clock.Advance(2 * time.Minute)
	_, err = m.token(newScope())
	require.Error(t, err)
	require.Equal(t, asked, m.requests(), "half an hour counts, not a minute")
}

// v1 gets 30 s of a call.
func TestV1IsWaitedFor(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	m.clock.Manual()
	m.server.Inject(noV2)
	m.server.Inject(imdstest.Fault{Endpoint: imdstest.V1, Do: imdstest.Hang{}})
	call := m.get(t.Context(), newScope())
	require.Eventually(t, func() bool { return m.server.Counts().V1 == 1 }, 10*time.Second, time.Millisecond)
	m.clock.Advance(30*time.Second - time.Millisecond)
	require.Empty(t, call)
	m.clock.Advance(time.Millisecond)
	err := (<-call).err
	require.ErrorContains(t, err, "no answer within 30s")
	require.ErrorContains(t, err, "no version 2")
	require.NotErrorIs(t, err, context.Canceled, "the caller did not give up")

	// A caller who gives up before gets the word of his context.
	ctx, cancel := context.WithCancel(t.Context())
	call = m.get(ctx, newScope())
	require.Eventually(t, func() bool { return m.server.Counts().V1 == 2 }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, (<-call).err, context.Canceled)
	require.NoError(t, m.cred.Close())
	require.Eventually(t, func() bool { return m.clock.Waiting() == 0 }, 10*time.Second, time.Millisecond, "Close ends it")
}

// A Transport of the caller's that heeds no context, or panics, holds up no call.
func TestV1TransportMisbehaves(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	for name, do := range map[string]func(){"panics": func() { panic("a mistake") }, "hangs": func() { <-over }} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) {
				next := o.Transport
				o.Transport = transporter(func(req *http.Request) (*http.Response, error) {
					if strings.Contains(req.URL.Path, "oauth2") {
						do()
					}
					return next.Do(req)
				})
			})
			m.clock.Manual()
			m.server.Inject(noV2)
			call := m.get(t.Context(), newScope())
			require.Eventually(t, func() bool {
				if m.server.Counts().Metadata == 1 {
					m.clock.Advance(10 * time.Second)
				}
				return len(call) == 1
			}, 10*time.Second, 10*time.Millisecond)
			require.Error(t, (<-call).err)
		})
	}
}

// What v1 says is repeated without the identity that was asked for.
func TestV1ErrorsAreMasked(t *testing.T) {
	id := uuid.NewString()
	m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) {
		o.ID = azidentity.ClientID(id)
		next := o.Transport
		o.Transport = transporter(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "oauth2") {
				return nil, &url.Error{Op: "Get", URL: req.URL.String(), Err: errors.New("no route")}
			}
			return next.Do(req)
		})
	})
	m.server.Inject(noV2)
	_, err := m.token(newScope())
	require.ErrorContains(t, err, "no route")
	require.ErrorContains(t, err, id[:6])
	require.NotContains(t, err.Error(), id)
}

// Tokens of v2 that are at hand are used on during an outage.
func TestTokensAtHandServeOn(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	scope := newScope()
	first, err := m.token(scope)
	require.NoError(t, err)
	m.server.Inject(entraFails)
	require.Equal(t, 1, m.servedBy())
	again, err := m.token(scope)
	require.NoError(t, err)
	require.Equal(t, first.Token, again.Token)
}

// A refresh of such a token that works ends the outage: v2 serves.
func TestRefreshEndsOutage(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	scope := newScope()
	_, err := m.token(scope)
	require.NoError(t, err)
	m.clock.Advance(34 * time.Minute)
	remove := m.server.Inject(entraFails)
	require.Equal(t, 1, m.servedBy())
	remove()
	_, err = m.token(scope)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return m.server.Counts().TokenIssued == 2 }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return m.servedBy() == 2 }, 10*time.Second, time.Millisecond)
}

// What Entra says of one resource, or of bound tokens alone, is no outage: the call is served by v1 where that does,
// others by v2.
func TestNoOutage(t *testing.T) {
	for name, answer := range map[string]imdstest.Action{
		"no such resource, code":  imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS500011"},
		"no such resource, OAuth": imdstest.EntraError{OAuth: "invalid_resource", AADSTS: "AADSTS50001"},
		"no such scope":           imdstest.EntraError{OAuth: "invalid_scope", AADSTS: "AADSTS70011"},
		"not assigned":            imdstest.EntraError{OAuth: "invalid_grant", AADSTS: "AADSTS50105"},
		"claims": imdstest.Respond{Status: 400, Header: http.Header{"Content-Type": {"application/json"}},
			Body: `{"error":"invalid_grant","claims":"{\"access_token\":{}}"}`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, imdstest.Options{}, nil)
			m.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: answer, Times: 1})
			require.Equal(t, 1, m.servedBy())
			require.Equal(t, 2, m.servedBy())
		})
	}
	m := newManaged(t, imdstest.Options{}, nil)
	m.server.Inject(
		imdstest.Fault{
			Endpoint: imdstest.Token,
			Times:    1,
			Do:       imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"},
		},
	)
	_, _, err := m.cred.GetBoundToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
	require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
	require.Equal(t, 2, m.servedBy())
}

// A token of v1 that an SDK client keeps has it come back when v2 is asked again, not in a day.
func TestV1TokenIsRefreshedInTime(t *testing.T) {
	var soonest, latest time.Duration
	for range 30 {
		m := newManaged(t, imdstest.Options{TokenLifetime: 24 * time.Hour}, nil)
		m.server.Inject(noV2)
		token, err := m.token(newScope())
		require.NoError(t, err)
		in := token.RefreshOn.Sub(m.clock.Wall())
		require.GreaterOrEqual(t, in, 27*time.Minute)
		require.LessOrEqual(t, in, 33*time.Minute)
		if soonest == 0 || in < soonest {
			soonest = in
		}
		latest = max(latest, in)
	}
	require.Greater(t, latest-soonest, time.Minute, "a fleet does not ask in step")
}

// Close ends what goes on in the background, and GetToken does without it from then on: v2 is asked again, while a
// caller waits.
func TestClosedManagedIdentity(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	remove := m.server.Inject(noV2)
	require.Equal(t, 1, m.servedBy())
	require.NoError(t, m.cred.Close())
	remove()
	require.Equal(t, 1, m.servedBy())
	m.clock.Advance(33 * time.Minute)
	require.Equal(t, 2, m.servedBy(), "v2 was waited for")
}

// Nobody answering any more during an outage is one more failure: v1 has served here, and its tokens may still be had.
func TestOutageOutlivesSilence(t *testing.T) {
	var gone bool
	m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) {
		next := o.Transport
		o.Transport = transporter(func(req *http.Request) (*http.Response, error) {
			if gone && strings.Contains(req.URL.Path, "getplatformmetadata") {
				return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
			}
			return next.Do(req)
		})
	})
	m.server.Inject(noV2)
	require.Equal(t, 1, m.servedBy())
	gone = true
	m.clock.Advance(33 * time.Minute)
	for range 3 {
		require.Equal(t, 1, m.servedBy())
		m.clock.Advance(time.Minute)
	}
}

// Status says whether v1 serves, why, since when and until when, and that the environment says so. Renew ends the wait
// if it worked.
func TestFallbackStatus(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	require.Equal(t, 2, m.servedBy())
	require.Nil(t, m.cred.Status().Fallback)
	m.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Respond{Status: 503}, Times: 4})
	require.Equal(t, 1, m.servedBy())
	status := m.cred.Status()
	require.Contains(t, status.Fallback.Cause, "503")
	require.Equal(t, m.clock.Wall(), status.Fallback.Since)
	require.Equal(t, m.clock.Wall().Add(time.Minute), status.Fallback.Next)
	require.Equal(t, uint64(1), status.Counters.Tokens)
	require.NotNil(t, status.LastError)

	require.Equal(t, 1, m.servedBy())
	require.NoError(t, m.cred.Renew(t.Context()))
	require.Equal(t, 1, m.servedBy(), "in the background")
	require.Eventually(t, func() bool { return m.servedBy() == 2 }, 10*time.Second, time.Millisecond)
	require.Nil(t, m.cred.Status().Fallback)

	t.Setenv("MSI_ENDPOINT", "http://127.0.0.1:1")
	elsewhere := newManaged(t, imdstest.Options{}, nil)
	require.Contains(t, elsewhere.cred.Status().Fallback.Cause, "CloudShell")
}
