package entra_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/internal/entra"
	"github.com/stretchr/testify/require"
)

// There is no token without its checks: it has a value, is of the type that was asked for, and its times make sense. An
// error quotes no more of the answer than a type: there may be a token in it.
func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{
		`{"token_type":"mtls_pop","expires_in":3599,"refresh_in":1800,"access_token":"secret"}`,
		`{"token_type":"MTLS_POP","expires_in":"3599.0","refresh_in":"","access_token":"secret"}`,
		`{"token_type":"Bearer","expires_in":1e300,"access_token":"secret"}`,
		"\ufeff{}", `{"access_token":"secret"`, "[]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		resp := &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body))}
		token, err := entra.ParseToken(resp, entra.TypeMtlsPoP)
		if err != nil {
			require.Less(t, len(err.Error()), 250)
			return
		}
		require.NotEmpty(t, token.Value)
		require.Positive(t, token.Refresh)
		require.Less(t, token.Refresh, token.Life)
		require.Contains(t, strings.ToLower(body), "mtls_pop")
	})
}

// Merged claims are a JSON object, with the capability if the client has it, and with whatever else the challenge asked
// for.
func FuzzMergeClaims(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"access_token":{"nbf":{"essential":true}},"id_token":null}`, `{"access_token":5}`, "null"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, claims string, enableCAE bool) {
		merged, err := entra.MergeClaims(claims, enableCAE)
		if err != nil || merged == "" {
			return
		}
		var before, after map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(merged), &after))
		var accessToken struct {
			Capabilities struct{ Values []string } `json:"xms_cc"`
		}
		if enableCAE {
			require.NoError(t, json.Unmarshal(after["access_token"], &accessToken))
			require.Equal(t, []string{"cp1"}, accessToken.Capabilities.Values)
		}
		if claims != "" {
			require.NoError(t, json.Unmarshal([]byte(claims), &before))
		}
		for name, value := range before {
			if name != "access_token" {
				require.JSONEq(t, string(value), string(after[name]))
			}
		}
	})
}
