package azmtls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sdkClient is what an Azure SDK client is at heart: azcore's pipeline with its bearer token policy.
func sdkClient(cred azcore.TokenCredential, options *azcore.ClientOptions) runtime.Pipeline {
	return runtime.NewPipeline("test", "v1", runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(cred, []string{storage}, nil)},
	}, options)
}

// send sends a request through the pipeline and returns its status and body.
func send(ctx context.Context, pipeline runtime.Pipeline, method, url, body string) (int, string, error) {
	req, err := runtime.NewRequest(ctx, method, url)
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		if err := req.SetBody(streaming.NopCloser(strings.NewReader(body)), "text/plain"); err != nil {
			return 0, "", err
		}
	}
	resp, err := pipeline.Do(req)
	if err != nil {
		return 0, "", err
	}
	answer, err := runtime.Payload(resp)
	return resp.StatusCode, string(answer), err
}

// bound returns a bound client of the fixture's credential.
func (f *fixture) bound() runtime.Pipeline {
	options := &azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
	f.cred.BindClientOptions(options)
	return sdkClient(f.cred, options)
}

// echo answers with the body of the request, so that a test sees what arrived.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	caller, _ := imdstest.CallerFromContext(r.Context())
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s", caller.Scheme, body)
})

func TestBoundClientUsesBoundTokens(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	client := f.bound()
	for range 3 {
		status, body, err := send(t.Context(), client, http.MethodPut, f.server.ResourceURL(), "payload")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "mtls_pop payload", body)
	}
	require.Equal(t, 1, f.server.Counts().Token)
	require.Equal(t, 1, f.server.Counts().ResourceConnections)
	f.noRejections()

	// The same credential gives a client that is not bound what it can use.
	plain := sdkClient(f.cred, &azcore.ClientOptions{Transport: &http.Client{Transport: f.server.MTLSTransport()}})
	_, body, err := send(t.Context(), plain, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, "Bearer ", body)
	f.noRejections()
}

// TestBoundClientHeals: the resource refuses the binding, the caller does not notice.
func TestBoundClientHeals(t *testing.T) {
	nginx := imdstest.Fault{Do: imdstest.Respond{
		Status: 400, Header: http.Header{"Content-Type": {"text/html"}},
		Body: "<html>\r\n<head><title>400 The SSL certificate error</title></head>\r\n<body>\r\n</body></html>",
	}}
	keyVault := imdstest.Fault{Do: imdstest.Respond{
		Status: 401, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}},
		Body: `{"error":{"code":"Unauthorized","innererror":{"code":"MtlsCnfClaimRequestDataValidationFailed"}}}`,
	}}
	faults := map[string]imdstest.Fault{
		"alert 42":              {At: imdstest.AtCertificate, Do: imdstest.Alert(42)},
		"alert 48":              {At: imdstest.AtCertificate, Do: imdstest.Alert(48)},
		"alert 116":             {At: imdstest.AtCertificate, Do: imdstest.Alert(116)},
		"reset in handshake":    {At: imdstest.AtCertificate, Do: imdstest.Reset{}},
		"EOF in handshake":      {At: imdstest.AtCertificate, Do: imdstest.EOF{}},
		"reset after handshake": {Do: imdstest.Reset{}},
		"EOF after handshake":   {Do: imdstest.EOF{}},
		"nginx":                 nginx,
		"Key Vault":             keyVault,
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, fault := range faults {
			if version == tls.VersionTLS12 && fault.Do == imdstest.Action(imdstest.Alert(116)) {
				continue // certificate_required is TLS 1.3's
			}
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: echo}, nil)
				client := f.bound()
				_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
				require.NoError(t, err)
				require.NoError(t, f.cred.Close())
				f.clock.Advance(6 * time.Minute) // the host is not known any more as one that takes this binding
				bad := f.store.get(alias).Thumbprint()
				fault := fault
				fault.Endpoint, fault.Thumbprint = imdstest.Resource, bad
				f.server.Inject(fault)
				asked := policy.WithHTTPHeader(t.Context(), http.Header{"x-ms-tokenboundauth": {"true"}})
				status, body, err := send(asked, client, http.MethodPut, f.server.ResourceURL(), "payload")
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "mtls_pop payload", body, "the body was sent again from its start")
				require.Equal(t, 2, f.server.Counts().Issued)
				require.Equal(t, 1, f.store.evicted())

				// The client's own policy still holds the token of the evicted binding: it must not be sent again.
				presented := f.server.Presented(bad)
				_, _, err = send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
				require.NoError(t, err)
				require.Equal(t, presented, f.server.Presented(bad))
				require.Equal(t, 2, f.server.Counts().Issued)
				f.noRejections()
			})
		}
	}
}

// What says nothing of the binding costs nothing: the caller gets what there is to be had, an answer, or an error of
// the network.
func TestBoundClientDoesNotHeal(t *testing.T) {
	once := func(at imdstest.Stage, action imdstest.Action) imdstest.Fault {
		return imdstest.Fault{At: at, Do: action, Times: 1}
	}
	const works, fails = "mtls_pop ", ""
	for name, test := range map[string]struct {
		fault imdstest.Fault
		want  string // the body
		sent  int    // how often the request reached the resource
	}{
		"one reset":              {once(imdstest.AtRequest, imdstest.Reset{}), works, 2},
		"one EOF":                {once(imdstest.AtRequest, imdstest.EOF{}), works, 2},
		"one reset in handshake": {once(imdstest.AtCertificate, imdstest.Reset{}), works, 1},
		"one reset before it":    {once(imdstest.AtHello, imdstest.Reset{}), works, 1},
		"resets before it":       {imdstest.Fault{At: imdstest.AtHello, Do: imdstest.Reset{}}, fails, 0},
		"reset in the body":      {imdstest.Fault{At: imdstest.AtBody, Do: imdstest.Reset{}}, fails, 1},
		"400 of its own":         {imdstest.Fault{Do: imdstest.Respond{Status: 400, Body: "bad"}}, "bad", 1},
		"401 of its own":         {imdstest.Fault{Do: imdstest.Respond{Status: 401, Body: "who?"}}, "who?", 1},
		"503":                    {imdstest.Fault{Do: imdstest.Respond{Status: 503, Body: "ill"}}, "ill", 1},
		"no cert seen": {imdstest.Fault{Do: imdstest.Respond{
			Status: 400, Header: http.Header{"Content-Type": {"text/html"}},
			Body: "<html><head><title>400 No required SSL certificate was sent</title></head></html>",
		}}, "<html><head><title>400 No required SSL certificate was sent</title></head></html>", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
			test.fault.Endpoint = imdstest.Resource
			f.server.Inject(test.fault)
			status, body, err := send(t.Context(), f.bound(), http.MethodGet, f.server.ResourceURL(), "")
			if test.want == fails {
				require.Error(t, err)
				var refusal *mtls.Refusal
				require.NotErrorAs(t, err, &refusal)
			} else {
				require.NoError(t, err)
				require.Equal(t, test.want, body, "what was looked at can still be read")
			}
			if answer, ok := test.fault.Do.(imdstest.Respond); ok {
				require.Equal(t, answer.Status, status)
			}
			require.NotZero(t, f.server.Counts().Faults)
			require.Equal(t, test.sent, f.server.Counts().Resource)
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Zero(t, f.store.evicted())
		})
	}
}

// A resource that refuses every binding must not make a mint of every request, nor take the binding from the others.
func TestResourceThatAlwaysRefuses(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtCertificate, Do: imdstest.Alert(48)})
	client := f.bound()
	for range 100 {
		_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
		require.ErrorContains(t, err, "refused at")
	}
	require.LessOrEqual(t, f.server.Counts().Issued, 4)
	_, err := f.token(vault)
	require.NoError(t, err, "other resources still get their tokens")
}

// Tokens of other credentials in the same client pass untouched, over the caller's own transport.
func TestForeignTokensPassUntouched(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	var seen []string
	options := &azcore.ClientOptions{Transport: transporter(func(req *http.Request) (*http.Response, error) {
		seen = append(seen, req.Header.Get("Authorization"))
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: req}, nil
	})}
	f.cred.BindClientOptions(options)
	_, _, err := send(t.Context(), sdkClient(fallback{}, options), http.MethodGet, "https://elsewhere.invalid", "")
	require.NoError(t, err)
	require.Equal(t, []string{"Bearer fallback"}, seen)
	require.Zero(t, f.server.Counts())
}

type transporter func(*http.Request) (*http.Response, error)

func (t transporter) Do(req *http.Request) (*http.Response, error) { return t(req) }

func TestBindClientOptions(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	f.cred.BindClientOptions(nil)

	var own atomic.Int32
	counting := policyFunc(func(req *policy.Request) (*http.Response, error) { own.Add(1); return req.Next() })
	shared := make([]policy.Policy, 1, 10)
	shared[0] = counting
	options := &azcore.ClientOptions{PerCallPolicies: shared, PerRetryPolicies: shared}
	f.cred.BindClientOptions(options)
	calls, retries := len(options.PerCallPolicies), len(options.PerRetryPolicies)
	f.cred.BindClientOptions(options)
	require.Len(t, options.PerCallPolicies, calls, "twice is as once")
	require.Len(t, options.PerRetryPolicies, retries)
	require.Nil(t, shared[:2][1], "the caller's slices are not written to")
	status, body, err := send(t.Context(), sdkClient(f.cred, options), http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "mtls_pop ", body)
	require.EqualValues(t, 2, own.Load(), "the caller's policies still run")
}

type policyFunc func(*policy.Request) (*http.Response, error)

func (p policyFunc) Do(req *policy.Request) (*http.Response, error) { return p(req) }

// A client bound to one credential must not make another one hand out tokens that the client cannot send.
func TestBindingIsPerCredential(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	other := f.another(nil)
	options := &azcore.ClientOptions{}
	other.BindClientOptions(options)
	_, body, err := send(t.Context(), sdkClient(f.cred, options), http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, "Bearer ", body)
}

// AADSTS392196: Auto falls back to bearer for this resource, PoP says what to set. The binding is not to blame.
func TestResourceWithoutTokenBinding(t *testing.T) {
	unsupported := imdstest.Fault{
		Endpoint: imdstest.Token,
		Do:       imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"},
		Times:    1,
	}
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	f.server.Inject(unsupported)
	client := f.bound()
	for range 2 {
		_, body, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
		require.NoError(t, err)
		require.Equal(t, "Bearer ", body)
	}
	require.Equal(t, 1, f.server.Counts().TokenIssued)
	require.Zero(t, f.store.evicted())

	pop := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP },
	)
	pop.server.Inject(unsupported)
	_, err := pop.token(vault)
	require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
	var failure *azmtls.AuthenticationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, "AADSTS392196", failure.AADSTS)
	require.Zero(t, pop.store.evicted())
	require.Equal(t, 1, pop.server.Counts().Issued)
}

// What net/http closes must not be the caller's file: azcore's own retry comes after ours.
func TestBodySurvivesRecoveryAndRetry(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	options := &azcore.ClientOptions{
		Retry: policy.RetryOptions{RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond},
	}
	f.cred.BindClientOptions(options)
	client := sdkClient(f.cred, options)
	_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.NoError(t, f.cred.Close())
	f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: imdstest.Respond{Status: 503}, Times: 1})
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: imdstest.Reset{}, Times: 1})
	file, err := os.Create(filepath.Join(t.TempDir(), "body"))
	require.NoError(t, err)
	_, err = file.WriteString("payload")
	require.NoError(t, err)
	req, err := runtime.NewRequest(t.Context(), http.MethodPut, f.server.ResourceURL())
	require.NoError(t, err)
	require.NoError(t, req.SetBody(file, "text/plain"))
	resp, err := client.Do(req)
	require.NoError(t, err)
	body, err := runtime.Payload(resp)
	require.NoError(t, err)
	require.Equal(t, "mtls_pop payload", string(body))
	require.Equal(t, 2, f.server.Counts().Issued)
	require.Equal(t, 3, f.server.Counts().Faults)
	require.ErrorIs(t, file.Close(), os.ErrClosed, "it was closed in the end")
}

// Entra may stop binding tokens for a resource while a client still holds a bound one.
func TestResourceThatStopsTokenBinding(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	client := f.bound()
	_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.NoError(t, f.cred.Close())
	f.resourceRefuses()
	f.server.Inject(
		imdstest.Fault{
			Endpoint: imdstest.Token,
			Do:       imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"},
			Times:    1,
		},
	)
	_, body, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, "Bearer ", body)
	f.noRejections()
}

// A claims challenge of the resource (continuous access evaluation) gets a new bound token through the same path.
func TestBoundClientAnswersClaimsChallenges(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Resource, Times: 1, Do: imdstest.Respond{Status: 401, Header: http.Header{
			"Www-Authenticate": {
				`Bearer realm="", error="insufficient_claims", ` +
					`claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxIn19fQ=="`,
			},
		}}},
	)
	status, body, err := send(t.Context(), f.bound(), http.MethodPut, f.server.ResourceURL(), "payload")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "mtls_pop payload", body)
	require.Equal(t, 2, f.server.Counts().TokenIssued)
	require.Equal(t, 1, f.server.Counts().Issued)
	f.noRejections()
}

// Many goroutines share one client while its binding rotates: none fails, none carries a token on another's connection.
func TestSharedClientWhileTheBindingRotates(t *testing.T) {
	const goroutines, requests = 100, 20
	var f *fixture
	var served atomic.Int32
	var refused atomic.Value
	f = newFixture(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) == goroutines*requests/3 {
			bad := f.store.get(alias).Thumbprint()
			f.server.Refuse(bad, 48)
			refused.Store(bad)
		}
		if caller, _ := imdstest.CallerFromContext(r.Context()); caller.Thumbprint == refused.Load() {
			w.Header().Set("Connection", "close") // a refusal meets new connections only
		}
		echo(w, r)
	})}, nil)
	client := f.bound()
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range requests {
				payload := strings.Repeat("x", 1+i*1000)
				status, body, err := send(t.Context(), client, http.MethodPut, f.server.ResourceURL(), payload)
				assert.NoError(t, err)
				assert.Equal(t, http.StatusOK, status)
				assert.Equal(t, "mtls_pop "+payload, body)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 2, f.server.Counts().Issued)
	require.Equal(t, 1, f.store.evicted())
	f.noRejections()
}
