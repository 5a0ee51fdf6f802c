package azmtls_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// Services echo what their users wrote. The words by which a server refuses a certificate count in their own place
// only: elsewhere anyone could have a binding evicted by a request.
func TestEchoedWordsAreNoRefusal(t *testing.T) {
	const nginx, code = "400 The SSL certificate error", "MtlsCnfClaimRequestDataValidationFailed"
	title := "<html>\r\n<head><title>" + nginx + "</title></head>\r\n<body></body></html>"
	quoted := func(s string) string { out, _ := json.Marshal(s); return string(out) } // a string always encodes
	html, text := http.Header{"Content-Type": {"text/html"}}, http.Header{"Content-Type": {"text/plain"}}
	for name, answer := range map[string]imdstest.Respond{
		"nginx's words in JSON":            {Status: 400, Body: `{"error":{"message":` + quoted(nginx) + `}}`},
		"nginx's page in JSON":             {Status: 400, Body: `{"error":{"message":` + quoted(title) + `}}`},
		"nginx's page, all of it, as JSON": {Status: 400, Body: title},
		"nginx's page as plain text":       {Status: 400, Header: text, Body: title},
		"nginx's page as 401":              {Status: 401, Header: html, Body: title},
		"nginx's page as 403":              {Status: 403, Header: html, Body: title},
		"nginx's page as 200":              {Status: 200, Header: html, Body: title},
		"another page with its words": {
			Status: 400, Header: html,
			Body: "<html><head><title>No such page</title></head><body>" + title + "</body></html>",
		},
		"a page whose title goes on": {
			Status: 400, Header: html,
			Body: "<html><head><title>" + nginx + " of yours</title></head></html>",
		},
		"a page whose title begins elsewhere": {
			Status: 400, Header: html,
			Body: "<html><head><title>You asked for " + nginx + "</title></head></html>",
		},
		"a comment before its page": {
			Status: 400, Header: html, Body: "<!-- you said: -->" + title,
		},
		"its code in the message": {Status: 401, Body: `{"error":{"code":"Unauthorized","message":"` + code + `"}}`},
		"its code within another": {Status: 401, Body: `{"error":{"code":"Secret` + code + `"}}`},
		"its code and more":       {Status: 401, Body: `{"error":{"code":"` + code + `: my secret"}}`},
		"its code as a name":      {Status: 401, Body: `{"error":{"` + code + `":{"code":"Unauthorized"}}}`},
		"its code in a target":    {Status: 401, Body: `{"error":{"code":"A","target":{"code":"` + code + `"}}}`},
		"its code in a list":      {Status: 401, Body: `{"error":{"code":"A","details":[{"code":"` + code + `"}]}}`},
		"its code at the top":     {Status: 401, Body: `{"code":"` + code + `","innererror":{"code":"` + code + `"}}`},
		"its code as 400":         {Status: 400, Body: vaultRefuses.Body},
		"its code as 403":         {Status: 403, Body: vaultRefuses.Body},
		"its code as plain text":  {Status: 401, Header: text, Body: vaultRefuses.Body},
	} {
		if answer.Header == nil {
			answer.Header = http.Header{"Content-Type": {"application/json"}}
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(method+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, imdstest.Options{}, nil)
				f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: answer})
				asked := policy.WithHTTPHeader(t.Context(), http.Header{"x-ms-tokenboundauth": {"true"}})
				client := f.bound()
				for n := 1; n <= 3; n++ {
					status, body, err := send(asked, client, method, f.server.ResourceURL(), "payload")
					require.NoError(t, err)
					require.Equal(t, answer.Status, status)
					require.Equal(t, answer.Body, body, "the caller gets all of it")
					require.Equal(t, n, f.server.Counts().Resource, "nothing is repeated")
				}
				require.Equal(t, 1, f.server.Counts().Issued)
				require.Zero(t, f.store.evicted())
			})
		}
	}
}

// Key Vault looks at the certificate only of a request that asks it to. Another service's answer with its code means
// nothing.
func TestKeyVaultsCodeWithoutItsHeader(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: vaultRefuses})
	status, _, err := send(t.Context(), f.bound(), http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Zero(t, f.store.evicted())
	require.Equal(t, 1, f.server.Counts().Issued)
}

// Nor does the token endpoint refuse a binding by the words of others, or by a code that it mentions.
func TestEchoesOfTheTokenEndpoint(t *testing.T) {
	entra := func(code, description string) imdstest.Respond {
		return imdstest.Respond{
			Status: 400, Header: http.Header{"Content-Type": {"application/json"}},
			Body: fmt.Sprintf(`{"error":%q,"error_description":%q,"error_codes":[900144]}`, code, description),
		}
	}
	for name, answer := range map[string]imdstest.Respond{
		"nginx's page":            nginxRefuses,
		"its code":                vaultRefuses,
		"a code in the text":      entra("invalid_request", "AADSTS900144: the scope 'AADSTS1000901: x' is not one."),
		"an error in the text":    entra("invalid_request", "AADSTS900144: the scope 'invalid_client' is not one."),
		"a code within another":   entra("invalid_request", "AADSTS10009010: of something else."),
		"codes of attestation":    entra("invalid_request", "AADSTS10006100: of something else."),
		"an error within another": entra("invalid_client_metadata", "AADSTS900144: of something else."),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: answer})
			_, err := f.token(vault)
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, azmtls.RecoveryNone, failure.Recovery)
			require.Equal(t, 1, f.server.Counts().Token)
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Zero(t, f.store.evicted())
		})
	}
}
