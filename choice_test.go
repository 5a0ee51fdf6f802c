package azmtls_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

const (
	saysLate      = "call it before the client is made"
	saysOther     = "call BindClientOptions of the credential that the client is made with"
	saysDemanded  = "Call BindClientOptions before the client is made"
	saysElsewhere = "with TokenTypeAuto it is a bearer token"
	saysBypassed  = "the client's Transport is another than BindClientOptions set"
)

// hinted returns how often each of the hints was logged, until the test ends.
func hinted(t *testing.T) (counts func() map[string]int) {
	var mu sync.Mutex
	seen := map[string]int{}
	hunt.Listen(t, func(event log.Event, line string) {
		mu.Lock()
		defer mu.Unlock()
		for _, text := range []string{saysLate, saysOther, saysDemanded, saysElsewhere, saysBypassed} {
			if strings.Contains(line, text) && event == azmtls.EventAuthentication {
				seen[text]++
			}
		}
	})
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

// cosmos is the policy of clients that put their token elsewhere than azcore's: it does not ask with EnableCAE.
func cosmos(cred azcore.TokenCredential, options *azcore.ClientOptions) runtime.Pipeline {
	return runtime.NewPipeline("test", "v1", runtime.PipelineOptions{
		PerRetry: []policy.Policy{policyFunc(func(req *policy.Request) (*http.Response, error) {
			token, err := cred.GetToken(req.Raw().Context(), policy.TokenRequestOptions{Scopes: []string{storage}})
			if err != nil {
				return nil, err
			}
			req.Raw().Header.Set("Authorization", "type=aad&ver=1.0&sig="+token.Token)
			return req.Next()
		})},
	}, options)
}

// Who means a client to be bound, and did not bind it, is told so once, with what to do. Nobody else is.
func TestClientsThatAreNotBoundAreTold(t *testing.T) {
	type program func(t *testing.T, f *fixture) []runtime.Pipeline
	bind := func(cred *azmtls.ImdsV2MtlsCredential) *azcore.ClientOptions {
		options := &azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
		cred.BindClientOptions(options)
		return options
	}
	unbound := func(f *fixture) *azcore.ClientOptions {
		return &azcore.ClientOptions{
			Retry: policy.RetryOptions{MaxRetries: -1}, Transport: &http.Client{Transport: f.server.MTLSTransport()},
		}
	}
	tooLate := func(_ *testing.T, f *fixture) []runtime.Pipeline {
		options := unbound(f)
		client := sdkClient(f.cred, options)
		f.cred.BindClientOptions(options)
		return []runtime.Pipeline{client}
	}
	for name, test := range map[string]struct {
		tokenType azmtls.TokenType
		program   program
		want      map[string]int
	}{
		"bound": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{f.bound()}
		}, map[string]int{}},
		"bound, PoP": {azmtls.TokenTypeMtlsPoP, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{f.bound()}
		}, map[string]int{}},
		"never bound": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{sdkClient(f.cred, unbound(f))}
		}, map[string]int{}},
		"bound and not bound": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{f.bound(), sdkClient(f.cred, unbound(f))}
		}, map[string]int{}},
		"a Client and not bound": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			_ = f.cred.Client(storage) // it needs no binding, and may go unused
			return []runtime.Pipeline{sdkClient(f.cred, unbound(f))}
		}, map[string]int{}},
		"bound too late": {azmtls.TokenTypeAuto, tooLate, map[string]int{saysLate: 1}},
		"bound too late, twice": {azmtls.TokenTypeAuto, func(t *testing.T, f *fixture) []runtime.Pipeline {
			return append(tooLate(t, f), tooLate(t, f)...)
		}, map[string]int{saysLate: 1}},
		"bound too late, others in time": {azmtls.TokenTypeAuto, func(t *testing.T, f *fixture) []runtime.Pipeline {
			return append([]runtime.Pipeline{f.bound(), f.bound()}, tooLate(t, f)...)
		}, map[string]int{saysLate: 1}},
		"bound too late, PoP":    {azmtls.TokenTypeMtlsPoP, tooLate, map[string]int{saysLate: 1}},
		"bound too late, bearer": {azmtls.TokenTypeBearer, tooLate, map[string]int{}},
		"PoP, never bound": {azmtls.TokenTypeMtlsPoP, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{sdkClient(f.cred, unbound(f))}
		}, map[string]int{saysDemanded: 1}},
		"bound to another credential": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{sdkClient(f.cred, bind(f.another(nil)))}
		}, map[string]int{saysOther: 1}},
		"PoP, bound to another credential": {azmtls.TokenTypeMtlsPoP, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{sdkClient(f.cred, bind(f.another(nil)))}
		}, map[string]int{saysOther: 1}},
		"bound to both": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			options := bind(f.another(nil))
			f.cred.BindClientOptions(options)
			return []runtime.Pipeline{sdkClient(f.cred, options)}
		}, map[string]int{}},
		"another credential's token": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{sdkClient(fallback{}, bind(f.cred))}
		}, map[string]int{}},
		"Transport set after binding": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			options := bind(f.cred)
			options.Transport = unbound(f).Transport
			return []runtime.Pipeline{sdkClient(f.cred, options)}
		}, map[string]int{saysBypassed: 1}},
		"Transport set before": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			options := unbound(f)
			f.cred.BindClientOptions(options)
			return []runtime.Pipeline{sdkClient(f.cred, options)}
		}, map[string]int{}},
		"policies taken out": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			options := bind(f.cred)
			options.PerCallPolicies = nil
			return []runtime.Pipeline{sdkClient(f.cred, options)}
		}, map[string]int{saysLate: 1}},
		"Cosmos": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{cosmos(f.cred, bind(f.cred))}
		}, map[string]int{saysElsewhere: 1}},
		"Cosmos, not bound": {azmtls.TokenTypeAuto, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{cosmos(f.cred, unbound(f))}
		}, map[string]int{}},
		"Cosmos, PoP": {azmtls.TokenTypeMtlsPoP, func(_ *testing.T, f *fixture) []runtime.Pipeline {
			return []runtime.Pipeline{cosmos(f.cred, bind(f.cred))}
		}, map[string]int{saysElsewhere: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{TokenLifetime: 5 * time.Minute}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.TokenType = test.tokenType
			})
			hints := hinted(t)
			clients := test.program(t, f)
			for range 3 {
				for _, client := range clients {
					_, _, _ = send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
				}
				f.clock.Advance(10 * time.Minute)
			}
			require.Equal(t, test.want, hints())
		})
	}
}

// Who hears of it may ask for a token in turn.
func TestListenerOfHintMayAskForToken(t *testing.T) {
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP },
	)
	heard := 0
	hunt.Listen(t, func(_ log.Event, line string) {
		if strings.Contains(line, saysDemanded) {
			heard++
			_, err := f.token(vault)
			require.NoError(t, err)
		}
	})
	_, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 1, heard)
}

// A token that does not go out as Authorization: Bearer is never a bound one without its certificate: it is a bearer
// token, and where that is not allowed it is an error that says what to do.
func TestTokenThatGoesElsewhereIsNotBound(t *testing.T) {
	var header string
	f := newFixture(t, imdstest.Options{}, nil)
	options := &azcore.ClientOptions{Transport: transporter(func(req *http.Request) (*http.Response, error) {
		header = req.Header.Get("Authorization")
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: req}, nil
	})}
	f.cred.BindClientOptions(options)
	_, _, err := send(t.Context(), cosmos(f.cred, options), http.MethodGet, "https://account.documents.invalid", "")
	require.NoError(t, err)
	token, ok := strings.CutPrefix(header, "type=aad&ver=1.0&sig=")
	require.True(t, ok)
	require.NotContains(t, claimsOf(t, token), "cnf")

	header = ""
	pop := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP })
	options = &azcore.ClientOptions{Transport: options.Transport, Retry: policy.RetryOptions{MaxRetries: -1}}
	pop.BindClientOptions(options)
	_, _, err = send(t.Context(), cosmos(pop, options), http.MethodGet, "https://account.documents.invalid", "")
	require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
	require.ErrorContains(t, err, "TokenTypeAuto")
	require.Empty(t, header)
}

// Options whose policies were taken out again still let no bound token out without its certificate.
func TestOptionsThatWereTakenApart(t *testing.T) {
	for name, test := range map[string]struct {
		tokenType azmtls.TokenType
		takeOut   func(*azcore.ClientOptions)
	}{
		"per retry": {azmtls.TokenTypeAuto, func(o *azcore.ClientOptions) { o.PerRetryPolicies = nil }},
		"per call":  {azmtls.TokenTypeMtlsPoP, func(o *azcore.ClientOptions) { o.PerCallPolicies = nil }},
		"both": {azmtls.TokenTypeMtlsPoP, func(o *azcore.ClientOptions) {
			o.PerCallPolicies, o.PerRetryPolicies = nil, nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = test.tokenType })
			options := &azcore.ClientOptions{}
			f.cred.BindClientOptions(options)
			test.takeOut(options)
			_, _, err := send(t.Context(), sdkClient(f.cred, options), http.MethodGet, f.server.ResourceURL(), "")
			require.ErrorContains(t, err, "would go out without its certificate")
			require.Zero(t, f.server.Counts().Resource)
		})
	}
}

// Nil, where there should be something, is an error or does nothing. It is no panic.
func TestNil(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	opts := policy.TokenRequestOptions{Scopes: []string{vault}, EnableCAE: true}
	var none context.Context
	f.cred.BindClientOptions(nil)
	for range 2 { // also where a token is at hand
		_, err := f.cred.GetToken(none, opts)
		var failure *azmtls.AuthenticationError
		require.ErrorAs(t, err, &failure)
		require.ErrorContains(t, err, "needs a context")
		_, err = f.cred.GetToken(t.Context(), opts)
		require.NoError(t, err)
	}
	for name, cred := range map[string]*azmtls.ImdsV2MtlsCredential{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			_, err := cred.GetToken(t.Context(), opts)
			require.ErrorContains(t, err, "NewImdsV2MtlsCredential")
			options := &azcore.ClientOptions{}
			cred.BindClientOptions(options)
			cred.BindClientOptions(nil)
			require.Zero(t, *options)
			_, _, err = send(t.Context(), sdkClient(cred, options), http.MethodGet, "https://127.0.0.1:1", "")
			require.ErrorContains(t, err, "NewImdsV2MtlsCredential")
			client := cred.Client(vault)
			_, err = client.Get("https://127.0.0.1:1")
			require.ErrorContains(t, err, "NewImdsV2MtlsCredential")
			client.CloseIdleConnections()
			require.NoError(t, cred.Close())
		})
	}
}
