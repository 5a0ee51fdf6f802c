package imdstest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// credential returns one for the machine.
func credential(
	t *testing.T, s *imdstest.Server, edit func(*azmtls.ImdsV2MtlsCredentialOptions),
) *azmtls.ImdsV2MtlsCredential {
	t.Helper()
	o := s.CredentialOptions()
	if edit != nil {
		edit(o)
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cred.Close()) })
	return cred
}

// sdkClient is what SDK clients are made of.
func sdkClient(t *testing.T, cred *azmtls.ImdsV2MtlsCredential, scope string) runtime.Pipeline {
	options := &azcore.ClientOptions{}
	cred.BindClientOptions(options)
	bearer := runtime.NewBearerTokenPolicy(cred, []string{scope}, nil)
	return runtime.NewPipeline("test", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}}, options)
}

func get(t *testing.T, client runtime.Pipeline, address string) int {
	t.Helper()
	req, err := runtime.NewRequest(t.Context(), http.MethodGet, address)
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// testOfUser is the test of somebody who uses New.
type testOfUser struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *testOfUser) Helper()          {}
func (r *testOfUser) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *testOfUser) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// New closes its server with the test, and fails it for a rejection that it was not told of, or was and that never
// came.
func TestNew(t *testing.T) {
	for name, expect := range map[string]func(*imdstest.Server){
		"unexpected":          nil,
		"another endpoint":    func(s *imdstest.Server) { s.ExpectRejection(imdstest.Issue, "") },
		"for another reason":  func(s *imdstest.Server) { s.ExpectRejection(imdstest.Metadata, "proxy") },
		"expected":            func(s *imdstest.Server) { s.ExpectRejection(imdstest.Metadata, "cred-api-version") },
		"expected in any way": func(s *imdstest.Server) { s.ExpectRejection(imdstest.Metadata, "") },
	} {
		user := &testOfUser{TB: t}
		s := imdstest.New(user, nil)
		if expect != nil {
			expect(s)
		}
		req := request(t, s, imdstest.Metadata)
		req.URL.RawQuery = "cred-api-version=1.0"
		status, _ := do(t, req)
		require.Equal(t, http.StatusBadRequest, status)
		require.Len(t, user.cleanups, 1)
		user.cleanups[0]()
		_, err := http.DefaultClient.Do(request(t, s, imdstest.Metadata))
		require.Error(t, err, "it is closed")
		if name == "expected" || name == "expected in any way" {
			require.Empty(t, user.errors, name)
			continue
		}
		require.NotEmpty(t, user.errors, name)
		require.Contains(t, user.errors[0], "metadata: the query parameter cred-api-version is not 2.0")
		if expect == nil {
			require.Len(t, user.errors, 1)
			continue
		}
		require.Len(t, user.errors, 2, name)
		require.Contains(t, user.errors[1], "none was: ")
	}
}

// Credentials of one machine share no binding, unless they are given the same cache and store. The other credential of
// the library fits too.
func TestCredentialOptions(t *testing.T) {
	s := imdstest.New(t, nil)
	scope := policy.TokenRequestOptions{Scopes: []string{"https://" + uuid.NewString() + "/.default"}}
	for want := range 2 {
		_, err := credential(t, s, nil).GetToken(t.Context(), scope)
		require.NoError(t, err)
		require.Equal(t, want+1, s.Counts().Issued)
	}
	shared := s.CredentialOptions()
	for range 2 {
		cred := credential(t, s, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.Cache, o.Store = shared.Cache, shared.Store
		})
		_, err := cred.GetToken(t.Context(), scope)
		require.NoError(t, err)
		require.Equal(t, 3, s.Counts().Issued, "one for both")
	}
	require.Zero(t, s.Counts().V1)

	s.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})
	managed := azmtls.ManagedIdentityCredentialOptions(*s.CredentialOptions())
	cred, err := azmtls.NewManagedIdentityCredential(&managed)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cred.Close()) })
	_, err = cred.GetToken(t.Context(), scope)
	require.NoError(t, err)
	require.Equal(t, 1, s.Counts().V1Issued)
}

// A store outlives the cache in front of it, as it does a process.
func TestStoreOfCredentialOptions(t *testing.T) {
	s := imdstest.New(t, nil)
	first := s.CredentialOptions()
	scope := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	for range 2 {
		cred := credential(t, s, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Store = first.Store })
		_, err := cred.GetToken(t.Context(), scope)
		require.NoError(t, err)
		require.Equal(t, 1, s.Counts().Issued)
	}
}

// Both versions of IMDS know the identities of the machine, by each of their names, and no other.
func TestAssignedIdentities(t *testing.T) {
	const resource = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/a"
	a := imdstest.Identity{ClientID: uuid.NewString(), ObjectID: uuid.NewString(), ResourceID: resource}
	b := imdstest.Identity{ClientID: uuid.NewString()}
	two := imdstest.Options{UserAssigned: []imdstest.Identity{b, a}}
	none := imdstest.Options{UserAssigned: []imdstest.Identity{}}
	twoOnly, oneOnly, nobody := two, imdstest.Options{UserAssigned: []imdstest.Identity{a}}, imdstest.Options{}
	twoOnly.NoSystemAssigned, oneOnly.NoSystemAssigned, nobody.NoSystemAssigned = true, true, true
	const unknown, several = "Identity not found", "Multiple user assigned identities"
	for name, test := range map[string]struct {
		options imdstest.Options
		query   url.Values
		want    string // client id, or what is said
	}{
		"by client id":           {two, url.Values{"client_id": {a.ClientID}}, a.ClientID},
		"by object id":           {two, url.Values{"object_id": {a.ObjectID}}, a.ClientID},
		"by resource id":         {two, url.Values{"res_id": {"/SUBSCRIPTIONS" + resource[14:]}}, a.ClientID},
		"another client id":      {two, url.Values{"client_id": {uuid.NewString()}}, unknown},
		"another resource id":    {two, url.Values{"res_id": {"/subscriptions/x"}}, unknown},
		"none is assigned":       {none, url.Values{"client_id": {a.ClientID}}, unknown},
		"whichever":              {imdstest.Options{}, url.Values{"client_id": {a.ClientID}}, a.ClientID},
		"the system's":           {two, nil, client},
		"the only one":           {oneOnly, nil, a.ClientID},
		"one of two":             {twoOnly, nil, several},
		"a machine without any":  {nobody, nil, "No managed identity"},
		"no list, but a name":    {nobody, url.Values{"client_id": {a.ClientID}}, a.ClientID},
		"the system's by itself": {none, nil, client},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, test.options)
			for _, version := range []imdstest.Endpoint{imdstest.Metadata, imdstest.V1} {
				req, query := request(t, s, imdstest.Metadata), url.Values{"cred-api-version": {"2.0"}}
				resourceID, of := "mi_res_id", "clientId"
				if version == imdstest.V1 {
					req.URL.Path = "/metadata/identity/oauth2/token"
					query = url.Values{"api-version": {"2018-02-01"}, "resource": {"https://vault.azure.net"}}
					resourceID, of = "msi_res_id", "client_id"
				}
				for id, values := range test.query {
					if id == "res_id" {
						id = resourceID
					}
					query[id] = values
				}
				req.URL.RawQuery = query.Encode()
				status, body := do(t, req)
				if status == http.StatusOK {
					require.Equal(t, test.want, body[of])
				} else {
					require.Equal(t, http.StatusBadRequest, status)
					require.Contains(t, body["error_description"], test.want)
				}
			}
			require.Empty(t, s.Rejections(), "the requests are correct")
		})
	}
	s := newServer(t, imdstest.Options{UserAssigned: []imdstest.Identity{a}})
	cred := credential(t, s, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.ID = azidentity.ObjectID(a.ObjectID) })
	require.Equal(t, http.StatusOK, get(t, sdkClient(t, cred, "https://vault.azure.net/.default"), s.ResourceURL()))
	require.Empty(t, s.Rejections())
}

// A vault is found under its name. It sends its challenge, wants the header with a bound token, and says what a vault
// says to one that comes without its certificate.
func TestVault(t *testing.T) {
	for host, resource := range map[string]string{
		"my.vault.azure.net":      "https://vault.azure.net",
		"my.vault.azure.cn":       "https://vault.azure.cn",
		"my.managedhsm.azure.net": "https://managedhsm.azure.net",
	} {
		s := imdstest.New(t, &imdstest.Options{Vault: host})
		require.Equal(t, "https://"+host, s.ResourceURL())
		plain := &http.Client{Transport: s.MTLSTransport()}
		resp, err := plain.Get(s.ResourceURL())
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		challenge := resp.Header.Get("WWW-Authenticate")
		require.Regexp(t, `^Bearer authorization="https://[^"]+", resource="`+regexp.QuoteMeta(resource)+`"$`, challenge)
		client := sdkClient(t, credential(t, s, nil), resource+"/.default")
		require.Equal(t, http.StatusOK, get(t, client, s.ResourceURL()))
	}

	s := imdstest.New(t, &imdstest.Options{Vault: "my.vault.azure.net"})
	cred := credential(t, s, nil)
	scope := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	token, binding, err := cred.GetBoundToken(t.Context(), scope)
	require.NoError(t, err)
	for name, edit := range map[string]func(*http.Request, *http.Transport){
		"without the header":      func(req *http.Request, _ *http.Transport) { req.Header.Del("x-ms-tokenboundauth") },
		"without the certificate": func(_ *http.Request, tr *http.Transport) { tr.TLSClientConfig.Certificates = nil },
	} {
		s.ExpectRejection(imdstest.Resource, "bound token")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ResourceURL(), nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "mtls_pop "+token.Token)
		req.Header.Set("x-ms-tokenboundauth", "true")
		transport := s.MTLSTransport()
		transport.TLSClientConfig.Certificates = append(transport.TLSClientConfig.Certificates, binding.Certificate)
		edit(req, transport)
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		var body map[string]any
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode, name)
		inner := body["error"].(map[string]any)["innererror"].(map[string]any)
		require.Equal(t, "MtlsCnfClaimRequestDataValidationFailed", inner["code"], name)
		transport.CloseIdleConnections()
	}
}

// What a vault refuses for another reason than the certificate says nothing against the certificate, which stays.
func TestVaultRefusesToken(t *testing.T) {
	s := imdstest.New(t, &imdstest.Options{Vault: "my.vault.azure.net"})
	s.ExpectRejection(imdstest.Resource, "invalid audience")
	client := sdkClient(t, credential(t, s, nil), "https://storage.azure.com/.default")
	require.Equal(t, http.StatusUnauthorized, get(t, client, s.ResourceURL()))
	require.Equal(t, 1, s.Counts().Resource)
	require.Equal(t, 1, s.Counts().Issued)
}

// A resource that demands claims challenges tokens without them. The client asks for one with them, once.
func TestDemandClaims(t *testing.T) {
	const nbf = `{"access_token":{"nbf":{"essential":true,"value":"1767225600"}}}`
	s := imdstest.New(t, nil)
	client := sdkClient(t, credential(t, s, nil), "https://vault.azure.net/.default")
	require.Equal(t, http.StatusOK, get(t, client, s.ResourceURL()))
	s.DemandClaims(nbf)
	require.Equal(t, http.StatusOK, get(t, client, s.ResourceURL()))
	require.Equal(t, 2, s.Counts().TokenIssued)
	require.Equal(t, 3, s.Counts().Resource)
	require.Equal(t, http.StatusOK, get(t, client, s.ResourceURL()))
	require.Equal(t, 2, s.Counts().TokenIssued)
	s.DemandClaims(`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`)
	require.Equal(t, http.StatusOK, get(t, client, s.ResourceURL()))
	require.Equal(t, 3, s.Counts().TokenIssued, "other claims")
	s.DemandClaims("")
	require.Equal(t, http.StatusOK, get(t, client, s.ResourceURL()))
	require.Equal(t, 3, s.Counts().TokenIssued)
	require.Panics(t, func() { s.DemandClaims("[]") })
}

// One clock moves server and credential: a token and a certificate come to their ends in no time.
func TestClock(t *testing.T) {
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c := imdstest.NewClock(start)
	s := imdstest.New(t, &imdstest.Options{Clock: c, TokenLifetime: time.Hour, CertificateLifetime: 7 * 24 * time.Hour})
	cred := credential(t, s, nil)
	scope := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	token, err := cred.GetToken(t.Context(), scope)
	require.NoError(t, err)
	require.Equal(t, start.Add(time.Hour), token.ExpiresOn)
	c.Advance(59 * time.Minute)
	_, err = cred.GetToken(t.Context(), scope)
	require.NoError(t, err)
	require.Equal(t, 2, s.Counts().TokenIssued, "too near its end")
	require.Equal(t, 1, s.Counts().Issued)
	c.Advance(8 * 24 * time.Hour)
	_, err = cred.GetToken(t.Context(), scope)
	require.NoError(t, err)
	require.Equal(t, 2, s.Counts().Issued, "the certificate has ended")
	ill := imdstest.Respond{Status: http.StatusServiceUnavailable}
	s.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: ill, Times: 3})
	before, real := c.Now(), time.Now()
	require.NoError(t, cred.Renew(t.Context()))
	require.GreaterOrEqual(t, c.Now().Sub(before), 7*time.Second, "1, 2 and 4 s of back-off")
	require.Less(t, time.Since(real), 5*time.Second)
	c.Set(start)
	require.Equal(t, start, c.Now())
}
