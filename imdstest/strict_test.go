package imdstest_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/csr"
	"github.com/stretchr/testify/require"
)

// Each violation is refused, and the reason names the culprit.
func TestStrictIMDS(t *testing.T) {
	editBody := func(edit func(map[string]any)) func(*http.Request) {
		return func(r *http.Request) {
			var body map[string]any
			if json.NewDecoder(r.Body).Decode(&body) != nil {
				return
			}
			edit(body)
			out, _ := json.Marshal(body)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(out)), int64(len(out))
		}
	}
	editCSR := func(edit func([]byte) []byte) func(*http.Request) {
		return editBody(func(body map[string]any) {
			der, _ := base64.StdEncoding.DecodeString(body["csr"].(string))
			body["csr"] = base64.StdEncoding.EncodeToString(edit(der))
		})
	}
	otherCSR := func(p csr.Params) func(*http.Request) {
		return editCSR(func([]byte) []byte {
			der, err := csr.New(testKey(), p)
			require.NoError(t, err)
			return der
		})
	}
	query := func(key, value string) func(*http.Request) {
		return func(r *http.Request) {
			q := r.URL.Query()
			q.Set(key, value)
			r.URL.RawQuery = q.Encode()
		}
	}
	for name, test := range map[string]struct {
		endpoint imdstest.Endpoint
		spoil    func(*http.Request)
		culprit  string
	}{
		"Metadata header":   {imdstest.Metadata, func(r *http.Request) { r.Header.Set("Metadata", "false") }, "Metadata"},
		"request id":        {imdstest.Metadata, func(r *http.Request) { r.Header.Del("x-ms-client-request-id") }, "x-ms-client-request-id"},
		"proxy":             {imdstest.Metadata, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "10.0.0.1") }, "X-Forwarded-For"},
		"version":           {imdstest.Metadata, query("cred-api-version", "1.0"), "cred-api-version"},
		"method":            {imdstest.Metadata, func(r *http.Request) { r.Method = http.MethodPost }, "method"},
		"unknown parameter": {imdstest.Metadata, query("identity", "x"), "identity"},
		"client id":         {imdstest.Metadata, query("client_id", "me"), "client_id"},
		"two identities": {imdstest.Metadata, func(r *http.Request) {
			query("client_id", client)(r)
			query("object_id", client)(r)
		}, "more than one"},
		"content type":      {imdstest.Issue, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, "content type"},
		"unknown field":     {imdstest.Issue, editBody(func(b map[string]any) { b["extra"] = "x" }), "extra"},
		"empty attestation": {imdstest.Issue, editBody(func(b map[string]any) { b["attestation_token"] = "" }), "attestation_token"},
		"no JSON":           {imdstest.Issue, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1 }, "JSON"},
		"PEM":               {imdstest.Issue, editBody(func(b map[string]any) { b["csr"] = "-----BEGIN" }), "PEM"},
		"line breaks":       {imdstest.Issue, editBody(func(b map[string]any) { b["csr"] = b["csr"].(string) + "\n" }), "line breaks"},
		"base64":            {imdstest.Issue, editBody(func(b map[string]any) { b["csr"] = "*" }), "base64"},
		"no CSR":            {imdstest.Issue, editBody(func(b map[string]any) { b["csr"] = "AAAA" }), "PKCS#10"},
		"signature":         {imdstest.Issue, editCSR(func(d []byte) []byte { d[len(d)-1] ^= 1; return d }), "signature"},
		"tenant":            {imdstest.Issue, otherCSR(csr.Params{ClientID: client, TenantID: client, CuID: []byte(cuID)}), "DC"},
		"client":            {imdstest.Issue, otherCSR(csr.Params{ClientID: tenant, TenantID: tenant, CuID: []byte(cuID)}), "CN"},
		"compute unit":      {imdstest.Issue, otherCSR(csr.Params{ClientID: client, TenantID: tenant, CuID: []byte(`{}`)}), "cuId"},
		"algorithm of Go": {imdstest.Issue, editCSR(func([]byte) []byte { // with NULLs and a trailer field
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: x509.SHA256WithRSAPSS}, testKey())
			require.NoError(t, err)
			return der
		}), "RSASSA-PSS"},
		"key of another size": {imdstest.Issue, editCSR(func([]byte) []byte {
			key, err := rsa.GenerateKey(rand.Reader, 3072)
			require.NoError(t, err)
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
			require.NoError(t, err)
			return der
		}), "2048"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, imdstest.Options{})
			req := request(t, s, test.endpoint)
			test.spoil(req)
			status, body := do(t, req)
			require.Equal(t, http.StatusBadRequest, status)
			require.NotEmpty(t, body["error"])
			require.Len(t, s.Rejections(), 1)
			require.Contains(t, s.Rejections()[0].String(), test.culprit)
			require.Zero(t, s.Counts().Issued)
		})
	}
	s := newServer(t, imdstest.Options{RequireAttestation: true})
	status, _ := do(t, request(t, s, imdstest.Issue))
	require.Equal(t, http.StatusBadRequest, status)
	probe := request(t, s, imdstest.Metadata)
	probe.Header.Del("Metadata")
	status, _ = do(t, probe)
	require.Equal(t, http.StatusBadRequest, status, "a probe is told that IMDS v2 is here")
	require.Len(t, s.Rejections(), 1, "a probe is no mistake")
	unknown := request(t, s, imdstest.Metadata)
	unknown.URL.Path = "/metadata/instance"
	status, _ = do(t, unknown)
	require.Equal(t, http.StatusNotFound, status)
}

func TestStrictEntra(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	leaf, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	for culprit, edit := range map[string]func(url.Values){
		"client_id":  func(f url.Values) { f.Set("client_id", tenant) },
		"grant_type": func(f url.Values) { f.Set("grant_type", "password") },
		"scope":      func(f url.Values) { f.Set("scope", "https://storage.azure.com") },
		"token_type": func(f url.Values) { f.Set("token_type", "pop") },
		"extra":      func(f url.Values) { f.Set("extra", "x") },
		"twice":      func(f url.Values) { f.Add("scope", "https://b/.default") },
		"claims":     func(f url.Values) { f.Set("claims", "{") },
	} {
		f := form("bearer")
		edit(f)
		status, body, err := postForm(over(s, leaf), s, f)
		require.NoError(t, err)
		require.GreaterOrEqual(t, status, 400, culprit)
		require.Contains(t, body["error_description"], "AADSTS")
		rejections := s.Rejections()
		require.Contains(t, rejections[len(rejections)-1].Reason, culprit)
	}
	_, _, err = postForm(over(s, nil), s, form("bearer"))
	require.Error(t, err, "without a certificate there is no connection")
}
