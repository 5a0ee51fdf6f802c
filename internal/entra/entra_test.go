package entra_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

const (
	clientID = "11111111-2222-3333-4444-555555555555"
	tenantID = "99999999-8888-7777-6666-555555555555"
)

func binding(host string) *mtls.Binding {
	return &mtls.Binding{Endpoint: "https://" + host + "/" + tenantID, ClientID: clientID}
}

// The caller's claims stay as they are, and cp1 comes to them where Entra looks for it.
func TestMergeClaims(t *testing.T) {
	const (
		cp1   = `"xms_cc":{"values":["cp1"]}`
		nbf   = `"nbf":{"essential":true,"value":"1"}`
		large = `"n":{"value":12345678901234567890}`
		other = `"xms_cc":{"values":["x"]}`
	)
	for name, test := range map[string]struct {
		claims string
		cae    bool
		want   string
	}{
		"none":              {"", false, ""},
		"cp1 alone":         {"", true, `{"access_token":{` + cp1 + `}}`},
		"challenge alone":   {`{"access_token":{` + nbf + `}}`, false, `{"access_token":{` + nbf + `}}`},
		"both":              {`{"access_token":{` + nbf + `}}`, true, `{"access_token":{` + nbf + `,` + cp1 + `}}`},
		"other token":       {`{"id_token":{"a":null}}`, true, `{"id_token":{"a":null},"access_token":{` + cp1 + `}}`},
		"empty":             {`{}`, true, `{"access_token":{` + cp1 + `}}`},
		"its own xms_cc":    {`{"access_token":{` + other + `}}`, true, `{"access_token":{` + cp1 + `}}`},
		"without, its own":  {`{"access_token":{` + other + `}}`, false, `{"access_token":{` + other + `}}`},
		"a large number":    {`{"access_token":{` + large + `}}`, true, `{"access_token":{` + large + `,` + cp1 + `}}`},
		"spaced":            {" { } \n", false, `{}`},
		"strange but legal": {`{"access_token":5}`, false, `{"access_token":5}`},
	} {
		t.Run(name, func(t *testing.T) {
			merged, err := entra.MergeClaims(test.claims, test.cae)
			require.NoError(t, err)
			if test.want == "" {
				require.Empty(t, merged)
				return
			}
			require.JSONEq(t, test.want, merged)
			if strings.Contains(test.claims, large) {
				require.Contains(t, merged, large, "no number is rounded")
			}
		})
	}
}

// Claims that are no JSON object are the caller's mistake, said before anything is sent. Claims may name a user: the
// error does not quote them.
func TestMergeClaimsRefuses(t *testing.T) {
	for _, cae := range []bool{false, true} {
		for _, claims := range []string{"secret", "null", "[]", `"secret"`, "5", `{"secret":1`, `{} {}`, " "} {
			_, err := entra.MergeClaims(claims, cae)
			require.ErrorContains(t, err, "not a JSON object", claims)
			require.NotContains(t, err.Error(), "secret")
		}
	}
	for _, accessToken := range []string{"5", "null", "[]", `"secret"`} {
		_, err := entra.MergeClaims(`{"access_token":`+accessToken+`}`, true)
		require.ErrorContains(t, err, `"access_token"`, accessToken)
		require.NotContains(t, err.Error(), "secret")
	}
}

// The request is the one of RFC 8705 as Entra wants it, and is made for one binding: the next one replaces all that is
// the first's.
func TestPrepare(t *testing.T) {
	req, err := entra.NewRequest(t.Context())
	require.NoError(t, err)
	require.Equal(t, "token.endpoint.of.the.binding.invalid", req.Raw().URL.Host, "nowhere (RFC 6761)")
	other := binding("weu.mtlsauth.example")
	other.ClientID = "55555555-2222-3333-4444-555555555555"
	for _, b := range []*mtls.Binding{binding("eus.mtlsauth.example:8443"), other} {
		for _, request := range []entra.Request{
			{Resource: "https://vault.azure.net", TokenType: entra.TypeMtlsPoP, Claims: `{"access_token":{}}`},
			{Resource: "api://a b&c=d", TokenType: entra.TypeBearer},
		} {
			require.NoError(t, request.Prepare(req, b))
			raw := req.Raw()
			endpoint, err := url.Parse(b.Endpoint)
			require.NoError(t, err)
			require.Equal(t, http.MethodPost, raw.Method)
			require.Equal(t, endpoint.Host, raw.URL.Host)
			require.Equal(t, endpoint.Host, raw.Host)
			require.Equal(t, "https", raw.URL.Scheme)
			require.Equal(t, "application/x-www-form-urlencoded", raw.Header.Get("Content-Type"))
			require.Equal(t, "application/json", raw.Header.Get("Accept"))
			require.NoError(t, uuid.Validate(raw.Header.Get("client-request-id")))
			require.Equal(t, "true", raw.Header.Get("return-client-request-id"))

			body, err := io.ReadAll(raw.Body)
			require.NoError(t, err)
			require.EqualValues(t, len(body), raw.ContentLength)
			form, err := url.ParseQuery(string(body))
			require.NoError(t, err)
			want := url.Values{
				"client_id": {b.ClientID}, "grant_type": {"client_credentials"},
				"scope": {request.Resource + "/.default"}, "token_type": {request.TokenType},
			}
			if request.Claims != "" {
				want["claims"] = []string{request.Claims}
			}
			require.Equal(t, want, form, "no claims rather than empty ones")
			require.NoError(t, req.RewindBody())
			again, err := io.ReadAll(raw.Body)
			require.NoError(t, err)
			require.Equal(t, body, again, "azcore's retry sends it all again")
		}
	}
}

// azcore logs and traces URLs, so the tenant stands in them in full only below it.
func TestTenantIsDisclosedBelowAzcoreOnly(t *testing.T) {
	for endpoint, masked := range map[string]string{
		"https://eus.mtlsauth.example/" + tenantID:        "https://eus.mtlsauth.example/999999…/oauth2/v2.0/token",
		"https://eus.mtlsauth.example/region/" + tenantID: "https://eus.mtlsauth.example/999999…/oauth2/v2.0/token",
		"https://eus.mtlsauth.example:8443/short":         "https://eus.mtlsauth.example:8443/short/oauth2/v2.0/token",
	} {
		b := &mtls.Binding{Endpoint: endpoint, ClientID: clientID}
		req, err := entra.NewRequest(t.Context())
		require.NoError(t, err)
		require.NoError(t, entra.Request{TokenType: entra.TypeBearer}.Prepare(req, b))
		shown, err := url.PathUnescape(req.Raw().URL.String())
		require.NoError(t, err)
		require.Equal(t, masked, shown)
		require.NoError(t, entra.Disclose(req.Raw(), b))
		require.Equal(t, endpoint+"/oauth2/v2.0/token", req.Raw().URL.String())
		require.Equal(t, req.Raw().URL.Host, req.Raw().Host)
	}
}

// Disclose goes by the binding, whatever became of the URL above it.
func TestDiscloseGoesByTheBinding(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://elsewhere.example/x?y=z", nil)
	require.NoError(t, err)
	require.NoError(t, entra.Disclose(req, binding("eus.mtlsauth.example")))
	require.Equal(t, "https://eus.mtlsauth.example/"+tenantID+"/oauth2/v2.0/token", req.URL.String())
	require.Equal(t, "eus.mtlsauth.example", req.Host)
}

func TestEndpointThatIsNoURL(t *testing.T) {
	bad := &mtls.Binding{Endpoint: "https://[::1"}
	req, err := entra.NewRequest(t.Context())
	require.NoError(t, err)
	require.ErrorContains(t, entra.Request{}.Prepare(req, bad), "not a URL")
	require.ErrorContains(t, entra.Disclose(req.Raw(), bad), "not a URL")
}

func parse(body, asked string) (entra.Token, error) {
	return entra.ParseToken(&http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body))}, asked)
}

// Times are numbers, with some deployments strings or decimals. Advice that makes no sense counts as none: then a token
// is refreshed half-way, and is not thrown away.
func TestLifetimes(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		expires, refresh string
		life, until      time.Duration
	}{
		"numbers":            {`86399`, `43199`, 86399 * time.Second, 43199 * time.Second},
		"strings":            {`"3600"`, `"1000"`, time.Hour, 1000 * time.Second},
		"decimals":           {`3600.0`, `"1000.5"`, time.Hour, 1000500 * time.Millisecond},
		"exponent":           {`3.6e3`, `1e3`, time.Hour, 1000 * time.Second},
		"no refresh_in":      {`3600`, ``, time.Hour, 30 * time.Minute},
		"null":               {`3600`, `null`, time.Hour, 30 * time.Minute},
		"zero":               {`3600`, `0`, time.Hour, 30 * time.Minute},
		"negative":           {`3600`, `-5`, time.Hour, 30 * time.Minute},
		"the end":            {`3600`, `3600`, time.Hour, 30 * time.Minute},
		"after the end":      {`3600`, `7200`, time.Hour, 30 * time.Minute},
		"just before it":     {`3600`, `3599`, time.Hour, 3599 * time.Second},
		"word":               {`3600`, `"soon"`, time.Hour, 30 * time.Minute},
		"not a number":       {`3600`, `"NaN"`, time.Hour, 30 * time.Minute},
		"empty string":       {`3600`, `""`, time.Hour, 30 * time.Minute},
		"object":             {`3600`, `{"seconds":5}`, time.Hour, 30 * time.Minute},
		"list":               {`3600`, `[5]`, time.Hour, 30 * time.Minute},
		"truth":              {`3600`, `true`, time.Hour, 30 * time.Minute},
		"too large":          {`3600`, `1e999`, time.Hour, 30 * time.Minute},
		"too small":          {`3600`, `-1e300`, time.Hour, 30 * time.Minute},
		"a life too long":    {`9223372036854775807`, ``, 365 * day, 365 * day / 2},
		"a life without end": {`1e999`, `60`, 365 * day, time.Minute},
		"a second":           {`1`, `0.5`, time.Second, 500 * time.Millisecond},
		"a moment":           {`1e-3`, `1e-9`, time.Millisecond, time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"token_type":"mtls_pop","access_token":"secret","expires_in":` + test.expires
			if test.refresh != "" {
				body += `,"refresh_in":` + test.refresh
			}
			got, err := parse(body+`}`, entra.TypeMtlsPoP)
			require.NoError(t, err)
			require.Equal(t, "secret", got.Value)
			require.Equal(t, test.life, got.Life)
			require.Equal(t, test.until, got.Refresh)
		})
	}
}

// A token of another type than the one asked for is a silent downgrade, or would be sent with the wrong scheme. Case is
// no type.
func TestTokenType(t *testing.T) {
	for _, test := range []struct {
		got, asked string
		says       string
	}{
		{"mtls_pop", entra.TypeMtlsPoP, ""},
		{"MTLS_PoP", entra.TypeMtlsPoP, ""},
		{"Bearer", entra.TypeBearer, ""},
		{"Bearer", entra.TypeMtlsPoP, "downgrade"},
		{"mtls_pop", entra.TypeBearer, "where bearer was asked for"},
		{"pop", entra.TypeMtlsPoP, "downgrade"},
		{"mtls_pop ", entra.TypeMtlsPoP, "downgrade"},
		{"", entra.TypeMtlsPoP, "names no token_type"},
		{strings.Repeat("x", 1000), entra.TypeBearer, "xxx"},
	} {
		body, err := json.Marshal(map[string]any{"access_token": "secret", "token_type": test.got, "expires_in": 3600})
		require.NoError(t, err)
		got, err := parse(string(body), test.asked)
		if test.says == "" {
			require.NoError(t, err, test.got)
			require.Equal(t, "secret", got.Value)
			continue
		}
		require.ErrorContains(t, err, test.says, test.got)
		require.Less(t, len(err.Error()), 200, "it quotes a little of what the server chose")
		require.Zero(t, got)
	}
}

// What is missing or no answer at all is an error that says so, and never quotes the token.
func TestUselessAnswers(t *testing.T) {
	for name, test := range map[string]struct{ body, says string }{
		"no access_token":     {`{"token_type":"bearer","expires_in":3600}`, "no access_token"},
		"empty access_token":  {`{"token_type":"bearer","expires_in":3600,"access_token":""}`, "no access_token"},
		"no token_type":       {`{"access_token":"secret","expires_in":3600}`, "names no token_type"},
		"no expires_in":       {`{"access_token":"secret","token_type":"bearer"}`, "no expires_in"},
		"expires_in of 0":     {`{"access_token":"secret","token_type":"bearer","expires_in":0}`, "no expires_in"},
		"expired":             {`{"access_token":"secret","token_type":"bearer","expires_in":-1}`, "no expires_in"},
		"expires_in is NaN":   {`{"access_token":"secret","token_type":"bearer","expires_in":"NaN"}`, "no expires_in"},
		"expires_in in words": {`{"access_token":"secret","token_type":"bearer","expires_in":"soon"}`, "no expires_in"},
		"not JSON":            {`secret`, "malformed"},
		"cut short":           {`{"access_token":"secret"`, "malformed"},
		"token no string":     {`{"access_token":["secret"],"token_type":"bearer","expires_in":3600}`, "malformed"},
		"empty":               {``, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.body, entra.TypeBearer)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "secret")
			require.Zero(t, got)
		})
	}
}

func TestAnswerThatCannotBeRead(t *testing.T) {
	lost := errors.New("connection reset")
	resp := &http.Response{StatusCode: 200, Body: io.NopCloser(iotest.ErrReader(lost))}
	_, err := entra.ParseToken(resp, entra.TypeBearer)
	require.ErrorIs(t, err, lost)
}
