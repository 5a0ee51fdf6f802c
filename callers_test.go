package azmtls_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requests collects what azcore logs of requests, their headers included, until the test ends.
func requests(t *testing.T) (besides func(url string) []string) {
	var mu sync.Mutex
	var seen []string
	hunt.Listen(t, func(event log.Event, line string) {
		mu.Lock()
		defer mu.Unlock()
		if event == log.EventRequest {
			seen = append(seen, line)
		}
	})
	return func(url string) []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.DeleteFunc(slices.Clone(seen), func(line string) bool { return strings.Contains(line, url) })
	}
}

// needsToken are the ways in which a call to a service comes to need IMDS and Entra. Each prepares the fixture, whose
// client has served a request already.
var needsToken = map[string]struct {
	prepare func(*fixture)
	mints   bool
}{
	"recovery": {(*fixture).resourceRefuses, true},
	"recovery at both": {func(f *fixture) {
		f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
		f.clock.Advance(2 * time.Hour) // the token has expired too
	}, true},
	"claims challenge": {func(f *fixture) {
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Times: 1, Do: challenge})
	}, false},
	"expired": {func(f *fixture) { f.clock.Advance(2 * time.Hour) }, false},
}

// challenge is the answer of a resource that wants a token with claims (continuous access evaluation).
var challenge = imdstest.Respond{
	Status: 401, Body: "the token was revoked", Header: http.Header{"Www-Authenticate": {
		`Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`,
	}},
}

// What the caller put into the context of his call is for the service that he calls: headers reach it, and neither IMDS
// (over plain http!) nor Entra, whose requests they could break; the response that is captured is the service's, never
// one with a token in it.
func TestCallersValuesReachTheServiceOnly(t *testing.T) {
	const secret = "the caller's secret"
	for name, test := range needsToken {
		t.Run(name, func(t *testing.T) {
			var served []string
			f := newFixture(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served = append(served, r.Header.Get("X-Secret")+r.Header.Get("Content-Type"))
				_, _ = io.WriteString(w, "served")
			})}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.Logging.AllowedHeaders = []string{"X-Secret", "Content-Type"}
			})
			sent := requests(t)
			headers := http.Header{"X-Secret": {secret}, "Content-Type": {"text/callers"}}
			client := f.bound()
			get := func() {
				t.Helper()
				var captured *http.Response
				ctx := policy.WithCaptureResponse(policy.WithHTTPHeader(t.Context(), headers), &captured)
				status, body, err := send(ctx, client, http.MethodGet, f.server.ResourceURL(), "")
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "served", body)
				require.Equal(t, f.server.ResourceURL(), captured.Request.URL.Scheme+"://"+captured.Request.URL.Host)
				require.NotContains(t, captured.Header, "X-Ms-Ests-Server")
			}
			get()
			require.NoError(t, f.cred.Close())
			test.prepare(f)
			get()
			require.Equal(t, []string{secret + "text/callers", secret + "text/callers"}, served)
			if test.mints {
				require.Equal(t, 2, f.server.Counts().Issued)
			} else {
				require.Equal(t, 2, f.server.Counts().TokenIssued)
			}
			ours := sent(f.server.ResourceURL())
			require.GreaterOrEqual(t, len(ours), 4, "metadata, issue and two tokens were seen")
			for _, line := range ours {
				require.NotContains(t, strings.ToLower(line), "x-secret")
				require.NotContains(t, line, secret)
				require.NotContains(t, line, "text/callers")
			}
			f.noRejections()
		})
	}
}

// So it is where there is no service call: GetToken by itself, and Client.
func TestCallersValuesOfOtherCalls(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	sent := requests(t)
	var captured *http.Response
	ctx := policy.WithHTTPHeader(t.Context(), http.Header{"X-Secret": {"secret"}, "Content-Type": {"text/callers"}})
	ctx = policy.WithCaptureResponse(ctx, &captured)
	_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
	require.NoError(t, err)
	require.Nil(t, captured)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.server.ResourceURL(), nil)
	require.NoError(t, err)
	resp, err := f.cred.Client(storage).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	ours := sent(f.server.ResourceURL())
	require.Len(t, ours, 4, "metadata, issue and two tokens")
	for _, line := range ours {
		require.NotContains(t, strings.ToLower(line), "x-secret")
	}
	f.noRejections()
}

// How often Entra and IMDS are asked is not for the caller of a service to say: his retry options are for that service.
func TestCallersRetryOptionsAreForTheService(t *testing.T) {
	for name, ill := range map[string]imdstest.Endpoint{"Entra": imdstest.Token, "IMDS": imdstest.Metadata} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			f.server.Inject(imdstest.Fault{Endpoint: ill, Do: imdstest.Respond{Status: 503, Body: "ill"}})
			retries := policy.RetryOptions{MaxRetries: 10, RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}
			_, _, err := send(
				policy.WithRetryOptions(t.Context(), retries),
				f.bound(),
				http.MethodGet,
				f.server.ResourceURL(),
				"",
			)
			require.Error(t, err)
			asked := f.server.Counts().Metadata
			if ill == imdstest.Token {
				asked = f.server.Counts().Token
			}
			require.Equal(t, 4, asked, "one try and the three retries of the credential, or of IMDS")
			require.Zero(t, f.server.Counts().Resource)
		})
	}
	t.Run("service", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, nil)
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: imdstest.Respond{Status: 503, Body: "ill"}})
		retries := policy.RetryOptions{MaxRetries: 10, RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}
		_, _, err := send(
			policy.WithRetryOptions(t.Context(), retries),
			f.bound(),
			http.MethodGet,
			f.server.ResourceURL(),
			"",
		)
		require.NoError(t, err)
		require.Equal(t, 11, f.server.Counts().Resource, "there they count")
	})
	t.Run("service by Client", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, nil)
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: imdstest.Respond{Status: 503, Body: "ill"}})
		retries := policy.RetryOptions{MaxRetries: 3, RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}
		client := sdkClient(fallback{}, &azcore.ClientOptions{Transport: f.cred.Client(storage)})
		_, _, err := send(policy.WithRetryOptions(t.Context(), retries), client, http.MethodGet, f.server.ResourceURL(), "")
		require.NoError(t, err)
		require.Equal(
			t,
			4,
			f.server.Counts().Resource,
			"once: the SDK client's policy has counted them, Client's does not again",
		)
	})
}

// A captured response belongs to the caller, who may look at it while the token that he stopped waiting for is still on
// its way.
func TestCapturedResponseIsNotWrittenToByOthers(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	client := f.bound()
	var callers sync.WaitGroup
	for n := range 20 {
		callers.Go(func() {
			var captured *http.Response
			ctx, cancel := context.WithCancel(policy.WithCaptureResponse(t.Context(), &captured))
			defer cancel()
			if n%2 == 0 {
				cancel()
			}
			_, _, err := send(ctx, client, http.MethodGet, f.server.ResourceURL(), "")
			if err != nil {
				assert.ErrorIs(t, err, context.Canceled)
				assert.Nil(t, captured)
				return
			}
			assert.Equal(t, f.server.ResourceURL(), captured.Request.URL.Scheme+"://"+captured.Request.URL.Host)
		})
	}
	callers.Wait()
	_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	f.noRejections()
}
