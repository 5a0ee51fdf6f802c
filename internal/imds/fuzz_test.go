package imds

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/endpoint"
	"github.com/azmtls/azmtls/internal/problem"
	"github.com/stretchr/testify/require"
)

// Metadata that pass are what a certificate request can name, and lead to no address that was not checked.
func FuzzMetadata(f *testing.F) {
	f.Add(
		[]byte(
			`{"clientId":"11111111-2222-3333-4444-555555555555","tenantId":"t.onmicrosoft.com","cuId":{"vmId":"x"},"attestationEndpoint":"a"}`,
		),
	)
	f.Add(
		[]byte(
			`{"clientId":"11111111-2222-3333-4444-555555555555","tenantId":"../x","cuId":{},"attestationEndpoint":"https://h#"}`,
		),
	)
	f.Fuzz(func(t *testing.T, body []byte) {
		var m Metadata
		if json.Unmarshal(problem.WithoutBOM(body), &m) != nil || m.check() != nil {
			return
		}
		require.Regexp(t, guid, m.ClientID)
		require.False(t, strings.ContainsAny(m.TenantID, "/?#%\\ \r\n"))
		checked, err := endpoint.Check(m.AttestationEndpoint)
		require.NoError(t, err)
		require.Equal(t, checked, m.AttestationEndpoint)
		require.True(t, json.Valid(m.CuID.JSON()))
	})
}

// A credential that passes has a certificate and an endpoint that ends in its tenant.
func FuzzIssued(f *testing.F) {
	f.Add("11111111-2222-3333-4444-555555555555", "tenant", "AA==", "https://h/")
	f.Add("11111111-2222-3333-4444-555555555555", "ten/ant", "!", "https://h#")
	f.Fuzz(func(t *testing.T, client, tenantID, certificate, address string) {
		a := issueAnswer{
			ClientID: client, TenantID: tenantID, Certificate: certificate, IdentityType: "SystemAssigned", Endpoint: address,
		}
		issued, err := a.check()
		if err != nil {
			return
		}
		require.NotNil(t, issued.Certificate)
		require.True(t, strings.HasPrefix(issued.Endpoint, "https://"))
		require.True(t, strings.HasSuffix(issued.Endpoint, "/"+tenantID))
		_, err = endpoint.Check(issued.Endpoint)
		require.NoError(t, err)
	})
}

// A Retry-After is never negative, and bounded by an hour when it is a number.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"0", "120", "-1", "99999999999", "Mon, 02 Jan 2006 15:04:05 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "x", ""} {
		f.Add(seed, "Retry-After")
		f.Add(seed, "x-ms-retry-after-ms")
	}
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value, name string) {
		resp := &http.Response{Header: http.Header{http.CanonicalHeaderKey(name): {value}}}
		after, ok := retryAfter(resp, now)
		require.GreaterOrEqual(t, after, time.Duration(0))
		if _, err := http.ParseTime(value); err != nil {
			require.LessOrEqual(t, after, time.Hour)
		}
		require.True(t, ok || after == 0)
	})
}
