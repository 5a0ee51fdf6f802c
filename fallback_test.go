package azmtls_test

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// managed is a fixture whose credential can fall back.
type managed struct {
	*fixture
	cred *azmtls.ManagedIdentityCredential
}

func newManaged(t testing.TB, options imdstest.Options, edit func(*azmtls.ManagedIdentityCredentialOptions)) *managed {
	t.Helper()
	m := &managed{fixture: newFixture(t, options, nil)}
	o := azmtls.ManagedIdentityCredentialOptions(*m.options())
	if edit != nil {
		edit(&o)
	}
	var err error
	m.cred, err = azmtls.NewManagedIdentityCredential(&o)
	require.NoError(t, err)
	t.Cleanup(func() {
		hunt.Values(m.cred.Status())
		require.NoError(t, m.cred.Close())
	})
	return m
}

// newScope returns a scope that no other test asks for: MSAL keeps tokens of IMDS v1 for the whole process.
func newScope() string { return "https://" + uuid.NewString() + "/.default" }

func (m *managed) token(scope string) (azcore.AccessToken, error) {
	token, err := m.cred.GetToken(m.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
	hunt.Values(err)
	return token, err
}

// servedBy asks for a token that nobody has, and returns which version of IMDS it came from.
func (m *managed) servedBy() int {
	m.Helper()
	scope, before := newScope(), m.server.Counts()
	token, err := m.token(scope)
	require.NoError(m, err)
	claims := jwt.MapClaims{}
	_, _, err = jwt.NewParser().ParseUnverified(token.Token, claims)
	require.NoError(m, err)
	require.Equal(m, scope, claims["aud"].(string)+"/.default")
	if m.server.Counts().V1Issued > before.V1Issued {
		return 1
	}
	return 2
}

var (
	noV2       = imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: 404}}
	entraFails = imdstest.Fault{
		Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"},
	}
	noIdentity = imdstest.Fault{Endpoint: imdstest.V1, Do: imdstest.Respond{
		Status: 400, Body: `{"error":"invalid_request","error_description":"Identity not found"}`,
	}}
)

// Where IMDS v2 serves, azidentity is not asked.
func TestManagedIdentityV2Serves(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	require.Equal(t, 2, m.servedBy())
	require.Equal(t, 2, m.servedBy())
	require.Zero(t, m.server.Counts().V1)
	m.noRejections()
}

// Whatever it is that v2 cannot serve a call for, v1 does.
func TestManagedIdentityFallsBack(t *testing.T) {
	respond := func(endpoint imdstest.Endpoint, status int) imdstest.Fault {
		return imdstest.Fault{Endpoint: endpoint, Do: imdstest.Respond{Status: status, Body: `{"error":"x"}`}}
	}
	for name, test := range map[string]struct {
		fault imdstest.Fault
		edit  func(*azmtls.ManagedIdentityCredentialOptions)
	}{
		"no IMDS v2":             {fault: noV2},
		"metadata 500":           {fault: respond(imdstest.Metadata, 500)},
		"metadata malformed":     {fault: imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Malformed()}},
		"certificate 400":        {fault: respond(imdstest.Issue, 400)},
		"certificate 403":        {fault: respond(imdstest.Issue, 403)},
		"certificate 404":        {fault: respond(imdstest.Issue, 404)},
		"certificate 501":        {fault: respond(imdstest.Issue, 501)},
		"certificate for others": {fault: imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}}},
		"Entra 400":              {fault: entraFails},
		"Entra 503":              {fault: respond(imdstest.Token, 503)},
		"Entra refuses":          {fault: imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(42)}},
		"Entra resets":           {fault: imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Reset{}}},
		"untrusted": {edit: func(o *azmtls.ManagedIdentityCredentialOptions) {
			o.MTLSTransport.TLSClientConfig.RootCAs = nil
		}},
		"no key": {edit: func(o *azmtls.ManagedIdentityCredentialOptions) {
			o.KeyProvider = &keys{err: errors.New("the TPM is gone")}
		}},
		"no attestation": {edit: func(o *azmtls.ManagedIdentityCredentialOptions) {
			o.Attestation = noAttestation{}
		}},
		"panic": {edit: func(o *azmtls.ManagedIdentityCredentialOptions) {
			o.KeyProvider = &keys{broken: func() error { panic("a provider's mistake") }}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManaged(t, imdstest.Options{}, test.edit)
			if test.fault.Do != nil {
				m.server.Inject(test.fault)
			}
			require.Equal(t, 1, m.servedBy())
			before := m.server.Counts()
			require.Equal(t, 1, m.servedBy(), "at once")
			after := m.server.Counts()
			require.Equal(
				t,
				[3]int{before.Metadata, before.Issue, before.Token},
				[3]int{after.Metadata, after.Issue, after.Token},
			)
			m.noRejections()
		})
	}
}

// noAttestation is a provider without its library.
type noAttestation struct{}

func (noAttestation) Attest(context.Context, mtls.AttestationRequest) (string, error) {
	return "", errors.New("no library")
}

// Bad input is nobody's failure: v1 is not asked to do better, during an outage neither.
func TestManagedIdentityBadInput(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	for range 2 {
		before := m.server.Counts()
		for _, opts := range []policy.TokenRequestOptions{
			{},
			{Scopes: []string{vault, storage}},
			{Scopes: []string{""}},
			{Scopes: []string{"https://a https://b"}},
			{Scopes: []string{vault}, Claims: "{"},
		} {
			_, err := m.cred.GetToken(t.Context(), opts)
			var failed *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failed, "%v", opts)
			_, _, err = m.cred.GetBoundToken(t.Context(), opts)
			require.ErrorAs(t, err, &failed, "%v", opts)
			require.NotErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
		}
		require.Equal(t, before, m.server.Counts())
		m.server.Inject(noV2)
		require.Equal(t, 1, m.servedBy())
	}
	var nothing context.Context
	_, err := m.cred.GetToken(nothing, policy.TokenRequestOptions{Scopes: []string{vault}})
	require.ErrorContains(t, err, "needs a context")
	for _, none := range []*azmtls.ManagedIdentityCredential{nil, {}} {
		opts := policy.TokenRequestOptions{Scopes: []string{vault}}
		_, err = none.GetToken(t.Context(), opts)
		require.ErrorContains(t, err, "not made by NewManagedIdentityCredential")
		_, _, err = none.GetBoundToken(t.Context(), opts)
		require.ErrorContains(t, err, "not made by NewManagedIdentityCredential")
		require.ErrorContains(t, none.Renew(t.Context()), "not made by NewManagedIdentityCredential")
		require.Zero(t, none.Status())
		none.BindClientOptions(&azcore.ClientOptions{})
		_, err = none.Client(vault).Get("https://127.0.0.1:1")
		require.ErrorContains(t, err, "not made by")
		require.NoError(t, none.Close())
	}
}

// Options that cannot work are refused, those of v1 too, before any network call.
func TestManagedIdentityBadOptions(t *testing.T) {
	_, err := azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{TokenType: 9})
	require.ErrorContains(t, err, "ManagedIdentityCredential: TokenType")
	_, err = azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{ID: azidentity.ClientID("")})
	require.ErrorContains(t, err, "ManagedIdentityCredential: ID")
	t.Setenv("MSI_ENDPOINT", "http://127.0.0.1:1")
	_, err = azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{ID: azidentity.ClientID("x")})
	require.ErrorContains(t, err, "Cloud Shell")
	// A literal of azidentity's type fits.
	_, err = azmtls.NewManagedIdentityCredential(
		&azmtls.ManagedIdentityCredentialOptions{ClientOptions: azcore.ClientOptions{}, ID: nil},
	)
	require.NoError(t, err)
}

// The caller's own cancellation is no failure of v2: v1 is not asked, and the next call asks v2.
func TestManagedIdentityCancelled(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	remove := m.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Hang{}})
	ctx, cancel := context.WithCancel(t.Context())
	done := m.get(ctx, newScope())
	require.Eventually(t, func() bool { return m.server.Counts().Issue == 1 }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, (<-done).err, context.Canceled)
	require.Zero(t, m.server.Counts().V1)
	remove()
	m.clock.Advance(16 * time.Second) // the limit of the try that hangs
	require.Eventually(t, func() bool { return m.server.Counts().TokenIssued == 1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, 2, m.servedBy())
	require.Zero(t, m.server.Counts().V1)
}

// Nor is what Close cancelled a failure of v2.
func TestManagedIdentityClosed(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	m.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	done := m.get(ctx, newScope())
	require.Eventually(t, func() bool { return m.server.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
	cancel()
	<-done
	require.NoError(t, m.cred.Close())
	require.Eventually(t, func() bool { return m.clock.Waiting() == 0 }, 10*time.Second, time.Millisecond)
	require.Equal(t, 2, m.servedBy())
}

type result struct {
	token azcore.AccessToken
	err   error
}

// get asks for a token in a goroutine of its own.
func (m *managed) get(ctx context.Context, scope string) chan result {
	done := make(chan result, 1)
	go func() {
		token, err := m.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		done <- result{token, err}
	}()
	return done
}

// Where nobody answers at the address of IMDS, or somebody else, v1 is not asked: the credential is unavailable at
// once, and a chain goes on. That is not remembered.
func TestManagedIdentityNotHere(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "oauth2") {
			t.Error("v1 was asked")
		}
		w.Header().Set("Server", "nginx")
	}))
	defer other.Close()
	for name, address := range map[string]string{"refused": "127.0.0.1:1", "not IMDS": strings.TrimPrefix(other.URL, "http://")} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			address := address
			m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) {
				o.Transport = &http.Client{Transport: &http.Transport{
					DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
						mu.Lock()
						defer mu.Unlock()
						return (&net.Dialer{}).DialContext(ctx, network, address)
					},
					DisableKeepAlives: true,
				}}
			})
			chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{m.cred, fallback{}}, nil)
			require.NoError(t, err)
			token, err := chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			require.NoError(t, err)
			require.Equal(t, "fallback", token.Token)
			mu.Lock()
			address = strings.TrimPrefix(m.server.IMDSURL(), "http://")
			mu.Unlock()
			require.Equal(t, 2, m.servedBy())
		})
	}
}

// Where the environment names another source of tokens, azidentity serves, and IMDS is not asked.
func TestManagedIdentityElsewhere(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"App Service": {"IDENTITY_ENDPOINT": "http://source.invalid", "IDENTITY_HEADER": "secret"},
		"Azure ML":    {"MSI_ENDPOINT": "http://source.invalid", "MSI_SECRET": "secret"},
		"Cloud Shell": {"MSI_ENDPOINT": "http://source.invalid"},
		"Azure Arc":   {"IDENTITY_ENDPOINT": "http://source.invalid", "IMDS_ENDPOINT": "http://source.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range env {
				t.Setenv(key, value)
			}
			var hosts []string
			transport := transporter(func(req *http.Request) (*http.Response, error) {
				hosts = append(hosts, req.URL.Host)
				return imdsV1.Do(req)
			})
			cred, err := azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{
				ClientOptions: azcore.ClientOptions{Transport: transport}, Store: mtls.NoStore{}, Cache: &mtls.Cache{},
			})
			require.NoError(t, err)
			defer cred.Close()
			_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			if name == "Azure Arc" { // wants a secret from a file
				require.ErrorContains(t, err, "expected a 401")
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, []string{"source.invalid"}, hosts)
			_, _, err = cred.GetBoundToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)

			// Nor are bearer tokens of that source what is demanded.
			bound, err := azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{
				ClientOptions: azcore.ClientOptions{Transport: transport}, TokenType: azmtls.TokenTypeMtlsPoP,
			})
			require.NoError(t, err)
			chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{bound, fallback{}}, nil)
			require.NoError(t, err)
			_, err = bound.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			require.ErrorContains(t, err, "TokenType")
			_, err = chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			require.NoError(t, err, "it is unavailable")
			require.Equal(t, []string{"source.invalid"}, hosts)
		})
	}
}

// The same on Service Fabric, whose endpoint azidentity pins: the caller's http.Client reaches it as it is.
func TestManagedIdentityOnServiceFabric(t *testing.T) {
	if strings.Contains(os.Getenv("GODEBUG"), "fips140=only") {
		t.Skip("Service Fabric names its certificate by SHA-1")
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := imdsV1.Do(r)
		if err == nil {
			_, err = io.Copy(w, resp.Body)
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	t.Setenv("IDENTITY_ENDPOINT", server.URL)
	t.Setenv("IDENTITY_HEADER", "secret")
	t.Setenv("IDENTITY_SERVER_THUMBPRINT", fmt.Sprintf("%x", sha1.Sum(server.Certificate().Raw)))
	cred, err := azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: &http.Client{}}, Store: mtls.NoStore{}, Cache: &mtls.Cache{},
	})
	require.NoError(t, err)
	defer cred.Close()
	_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
	require.NoError(t, err)
	_, err = azmtls.NewManagedIdentityCredential(&azmtls.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: transporter(nil)},
	})
	require.ErrorContains(t, err, "azidentity: ManagedIdentityCredential: Service Fabric")
}

// What v1 has does not do where proof of possession or a strength is demanded: the error is v2's alone.
func TestManagedIdentityDemands(t *testing.T) {
	for name, demand := range map[string]func(*azmtls.ManagedIdentityCredentialOptions){
		"TokenTypeMtlsPoP":   func(o *azmtls.ManagedIdentityCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP },
		"MinBindingStrength": func(o *azmtls.ManagedIdentityCredentialOptions) { o.MinBindingStrength = mtls.StrengthSoftware },
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, imdstest.Options{}, demand)
			m.server.Inject(entraFails)
			_, err := m.token(newScope())
			var failed *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "AADSTS700016", failed.AADSTS)

			absent := newManaged(t, imdstest.Options{}, demand)
			absent.server.Inject(noV2)
			chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{absent.cred, fallback{}}, nil)
			require.NoError(t, err)
			_, err = chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			require.NoError(t, err, "it is unavailable")
			require.Zero(t, m.server.Counts().V1+absent.server.Counts().V1)
		})
	}
}

// Both errors are there whole, and a chain of azidentity goes by what v1 says.
func TestManagedIdentityErrors(t *testing.T) {
	wrongID := func(o *azmtls.ManagedIdentityCredentialOptions) { o.ID = azidentity.ClientID(uuid.NewString()) }
	for name, test := range map[string]struct {
		v2, v1   imdstest.Fault
		edit     func(*azmtls.ManagedIdentityCredentialOptions)
		goesOn   bool
		contains []string
	}{
		"no v2, a wrong ID":      {noV2, noIdentity, wrongID, false, []string{"no version 2", "isn't assigned"}},
		"no v2, no identity":     {noV2, noIdentity, nil, true, []string{"no version 2", "Identity not found"}},
		"Entra, a wrong ID":      {entraFails, noIdentity, wrongID, false, []string{"AADSTS700016", "isn't assigned"}},
		"Entra, no identity":     {entraFails, noIdentity, nil, true, []string{"AADSTS700016", "Identity not found"}},
		"no v2, v1 is malformed": {noV2, imdstest.Fault{Endpoint: imdstest.V1, Do: imdstest.Malformed()}, nil, false, []string{"no version 2", "JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManaged(t, imdstest.Options{}, test.edit)
			m.server.Inject(test.v2)
			m.server.Inject(test.v1)
			for range 2 { // the second call meets the outage
				_, err := m.token(newScope())
				for _, text := range test.contains {
					require.ErrorContains(t, err, text)
				}
				var ours *azmtls.AuthenticationError
				require.ErrorAs(t, err, &ours)
				var theirs *azidentity.AuthenticationFailedError
				require.ErrorAs(t, err, &theirs)
				require.Equal(
					t,
					!test.goesOn,
					strings.HasPrefix(theirs.Error(), "ManagedIdentityCredential"),
					"it is v1's, if v1 has one",
				)
				var final interface {
					error
					NonRetriable()
				}
				require.ErrorAs(t, err, &final)
			}
			chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{m.cred, fallback{}}, nil)
			require.NoError(t, err)
			_, err = chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			if test.goesOn {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.contains[1])
			}
		})
	}
}

// The ID serves both.
func TestManagedIdentityID(t *testing.T) {
	id := uuid.NewString()
	for _, faults := range [][]imdstest.Fault{nil, {noV2}} {
		m := newManaged(
			t,
			imdstest.Options{},
			func(o *azmtls.ManagedIdentityCredentialOptions) { o.ID = azidentity.ClientID(id) },
		)
		for _, fault := range faults {
			m.server.Inject(fault)
		}
		token, err := m.token(newScope())
		require.NoError(t, err)
		claims := jwt.MapClaims{}
		_, _, err = jwt.NewParser().ParseUnverified(token.Token, claims)
		require.NoError(t, err)
		require.Equal(t, id, claims["appid"])
		m.noRejections()
	}
}

// What the caller put into the context of its call reaches IMDS v1 as little as v2, and no token reaches the log.
func TestManagedIdentityKeepsSecrets(t *testing.T) {
	var lines strings.Builder
	var mu sync.Mutex
	hunt.Listen(t, func(_ log.Event, line string) {
		mu.Lock()
		defer mu.Unlock()
		lines.WriteString(line)
	})
	var secrets int
	m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) {
		o.Logging.IncludeBody = true
		o.APIVersion = "2020-01-01" // of the SDK clients that share the options
		next := o.Transport
		o.Transport = transporter(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Secret") != "" {
				secrets++
			}
			return next.Do(req)
		})
	})
	m.server.Inject(noV2)
	var captured *http.Response
	ctx := policy.WithCaptureResponse(policy.WithHTTPHeader(t.Context(), http.Header{"Secret": {"x"}}), &captured)
	token, err := m.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{newScope()}})
	require.NoError(t, err)
	require.Equal(t, 1, m.server.Counts().V1Issued)
	require.Zero(t, secrets)
	require.Nil(t, captured)
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, lines.String(), "oauth2/token")
	require.NotContains(t, lines.String(), token.Token)
}

// Claims reach v1, which bypasses its cache for them. v2 is asked with them in the background.
func TestManagedIdentityClaims(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	remove := m.server.Inject(noV2)
	opts := policy.TokenRequestOptions{Scopes: []string{newScope()}}
	for _, want := range []int{1, 1, 2} {
		if want == 2 {
			m.clock.Advance(33 * time.Minute)
			remove()
			opts.Claims = `{"id_token":{}}`
		}
		_, err := m.cred.GetToken(t.Context(), opts)
		require.NoError(t, err)
		require.Equal(t, want, m.server.Counts().V1)
	}
	require.Eventually(t, func() bool { return m.server.Counts().TokenIssued == 1 }, 10*time.Second, time.Millisecond)
	opts.Claims = ""
	require.Eventually(t, func() bool { return m.servedBy() == 2 }, 10*time.Second, time.Millisecond)
	asked := m.requests()
	_, err := m.cred.GetToken(t.Context(), opts)
	require.NoError(t, err)
	require.Equal(t, asked, m.requests(), "it is at hand")
}

// Callers who fall back at the same time share one request.
func TestManagedIdentityShares(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	m.server.Inject(noV2)
	m.server.Inject(imdstest.Fault{Endpoint: imdstest.V1, Do: imdstest.Delay(100 * time.Millisecond)})
	scope := newScope()
	calls := make([]chan result, 20)
	for i := range calls {
		calls[i] = m.get(t.Context(), scope)
	}
	for _, call := range calls {
		require.NoError(t, (<-call).err)
	}
	require.Equal(t, 1, m.server.Counts().V1)
}

// A token at hand costs what it costs without the fallback.
func TestManagedIdentityTokenAtHandIsFree(t *testing.T) {
	m := newManaged(t, imdstest.Options{}, nil)
	opts := policy.TokenRequestOptions{Scopes: []string{newScope()}}
	_, err := m.cred.GetToken(t.Context(), opts)
	require.NoError(t, err)
	ctx, alone := t.Context(), m.another(nil)
	_, err = alone.GetToken(ctx, opts)
	require.NoError(t, err)
	without := testing.AllocsPerRun(100, func() { _, _ = alone.GetToken(ctx, opts) })
	require.Equal(t, without, testing.AllocsPerRun(100, func() { _, _ = m.cred.GetToken(ctx, opts) }))
}
