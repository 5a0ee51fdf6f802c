package imdstest_test

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// newV1 returns azidentity's credential, which asks IMDS v1, for the simulator, and scopes that nobody else asks for:
// MSAL keeps tokens for the whole process.
func newV1(
	t *testing.T,
	s *imdstest.Server,
	id azidentity.ManagedIDKind,
) (*azidentity.ManagedIdentityCredential, []string) {
	t.Helper()
	options := s.ClientOptions()
	options.Retry = policy.RetryOptions{MaxRetries: -1}
	cred, err := azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: id},
	)
	require.NoError(t, err)
	return cred, []string{"https://" + uuid.NewString() + "/.default"}
}

// guidOf is the client id that the simulator makes up for an identity with this name.
func guidOf(name string) string {
	return uuid.NewHash(sha256.New(), uuid.NameSpaceURL, []byte(name), 8).String()
}

// azidentity gets a token of IMDS v1, which the resource takes, for each way to name an identity.
func TestV1(t *testing.T) {
	user := uuid.NewString()
	for name, test := range map[string]struct {
		id    azidentity.ManagedIDKind
		appID string
	}{
		"system-assigned": {nil, client},
		"client id":       {azidentity.ClientID(user), user},
		"object id":       {azidentity.ObjectID(user), guidOf(user)},
		"resource id":     {azidentity.ResourceID("/x"), guidOf("/x")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, imdstest.Options{TokenLifetime: 30 * time.Minute})
			cred, scopes := newV1(t, s, test.id)
			token, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: scopes})
			require.NoError(t, err)
			require.WithinDuration(t, time.Now().Add(30*time.Minute), token.ExpiresOn, 10*time.Second)
			claims := jwt.MapClaims{}
			_, _, err = jwt.NewParser().ParseUnverified(token.Token, claims)
			require.NoError(t, err)
			require.Equal(t, test.appID, claims["appid"])
			require.NotContains(t, claims, "cnf")
			require.Equal(t, scopes[0], claims["aud"].(string)+"/.default")
			require.Equal(t, http.StatusOK, call(t, over(s, nil), s, "Bearer "+token.Token))
			require.Equal(t, imdstest.Counts{V1: 1, V1Issued: 1, Resource: 1, ResourceAuthorized: 1}, s.Counts())
			require.Empty(t, s.Rejections())
		})
	}
}

// Faults strike at IMDS v1 as they do elsewhere, and azidentity tells them apart as it does on a machine: without an
// identity on it, a chain goes on.
func TestV1Faults(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	notFound := imdstest.Respond{Status: 400, Body: `{"error":"invalid_request","error_description":"Identity not found"}`}
	s.Inject(imdstest.Fault{Endpoint: imdstest.V1, Do: notFound, Times: 1})
	s.Inject(
		imdstest.Fault{Endpoint: imdstest.V1, At: imdstest.AtAnswer, Times: 1, Do: imdstest.Edit(func(body map[string]any) {
			delete(body, "expires_in")
			delete(body, "expires_on")
		})},
	)
	s.Inject(imdstest.Fault{Endpoint: imdstest.V1, Do: imdstest.Respond{Status: 503}, Skip: 1, Times: 1})
	cred, scopes := newV1(t, s, nil)
	for _, want := range []string{"Identity not found", "expires_in", "RESPONSE 503", ""} {
		_, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: scopes})
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
	require.Equal(t, imdstest.Counts{V1: 4, V1Issued: 2, Faults: 3}, s.Counts())
	require.Empty(t, s.Rejections())
}

// Each violation is refused, and the reason names the culprit.
func TestStrictV1(t *testing.T) {
	query := func(key string, values ...string) func(*http.Request) {
		return func(r *http.Request) {
			q := r.URL.Query()
			q[key] = values
			r.URL.RawQuery = q.Encode()
		}
	}
	for name, test := range map[string]struct {
		spoil   func(*http.Request)
		culprit string
	}{
		"Metadata header":   {func(r *http.Request) { r.Header.Set("Metadata", "false") }, "Metadata"},
		"method":            {func(r *http.Request) { r.Method = http.MethodPost }, "method"},
		"proxy":             {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "10.0.0.1") }, "X-Forwarded-For"},
		"no version":        {query("api-version"), "api-version"},
		"version":           {query("api-version", "2.0"), "api-version"},
		"no resource":       {query("resource"), "resource"},
		"two resources":     {query("resource", "a", "b"), "resource"},
		"malformed":         {func(r *http.Request) { r.URL.RawQuery += "&%zz" }, "malformed"},
		"resource id of v2": {query("mi_res_id", "/x"), "mi_res_id"},
		"client id":         {query("client_id", "me"), "client_id"},
		"empty identity":    {query("object_id", ""), "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, imdstest.Options{})
			req := v1Request(t, s)
			test.spoil(req)
			status, body := do(t, req)
			require.Equal(t, http.StatusBadRequest, status)
			require.Equal(t, "invalid_request", body["error"])
			require.Len(t, s.Rejections(), 1)
			require.Equal(t, imdstest.V1, s.Rejections()[0].Endpoint)
			require.Contains(t, s.Rejections()[0].Reason, test.culprit)
			require.Zero(t, s.Counts().V1Issued)
		})
	}
	s := newServer(t, imdstest.Options{})
	probe := v1Request(t, s)
	probe.Header.Del("Metadata")
	status, body := do(t, probe)
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "Required metadata header not specified", body["error_description"])
	require.Empty(t, s.Rejections(), "a probe is no mistake")
}

func v1Request(t *testing.T, s *imdstest.Server) *http.Request {
	t.Helper()
	q := url.Values{"api-version": {"2018-02-01"}, "resource": {"https://storage.azure.com"}}
	req, err := http.NewRequestWithContext(
		t.Context(), http.MethodGet, s.IMDSURL()+"/metadata/identity/oauth2/token?"+q.Encode(), nil,
	)
	require.NoError(t, err)
	req.Header.Set("Metadata", "true")
	return req
}
