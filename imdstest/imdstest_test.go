package imdstest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/csr"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

const (
	tenant = "99999999-8888-7777-6666-555555555555"
	client = "11111111-2222-3333-4444-555555555555"
	cuID   = `{"vmId":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}`
)

func newServer(t *testing.T, o imdstest.Options) *imdstest.Server {
	t.Helper()
	o.TenantID, o.ClientID, o.VMID = tenant, client, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	s := imdstest.NewServer(&o)
	t.Cleanup(s.Close)
	return s
}

// request builds a correct request to IMDS.
func request(t *testing.T, s *imdstest.Server, endpoint imdstest.Endpoint) *http.Request {
	t.Helper()
	method, path, body := http.MethodGet, "getplatformmetadata", ""
	if endpoint == imdstest.Issue {
		der, err := csr.New(testKey(), csr.Params{ClientID: client, TenantID: tenant, CuID: []byte(cuID)})
		require.NoError(t, err)
		method, path, body = http.MethodPost, "issuecredential", fmt.Sprintf(
			`{"csr":%q}`,
			base64.StdEncoding.EncodeToString(der),
		)
	}
	req, err := http.NewRequestWithContext(
		t.Context(),
		method,
		s.IMDSURL()+"/metadata/identity/"+path+"?cred-api-version=2.0",
		strings.NewReader(body),
	)
	require.NoError(t, err)
	req.Header.Set("Metadata", "true")
	req.Header.Set("x-ms-client-request-id", uuid.NewString())
	if endpoint == imdstest.Issue {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	return req
}

func do(t *testing.T, req *http.Request) (int, map[string]any) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Contains(t, resp.Header.Get("Server"), "IMDS")
	var body map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
	return resp.StatusCode, body
}

// over returns a client that presents the certificate, on a new connection for every request.
func over(s *imdstest.Server, leaf *x509.Certificate) *http.Client {
	transport := s.MTLSTransport()
	transport.DisableKeepAlives = true
	if leaf != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: testKey()}, nil
		}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func form(tokenType string) url.Values {
	return url.Values{
		"client_id":  {client},
		"grant_type": {"client_credentials"},
		"scope":      {"https://storage.azure.com/.default"},
		"token_type": {tokenType},
	}
}

func postForm(c *http.Client, s *imdstest.Server, form url.Values) (int, map[string]any, error) {
	resp, err := c.PostForm(s.TokenURL()+"/"+tenant+"/oauth2/v2.0/token", form)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var body map[string]any
	err = json.NewDecoder(resp.Body).Decode(&body)
	return resp.StatusCode, body, err
}

func call(t *testing.T, c *http.Client, s *imdstest.Server, authorization string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ResourceURL(), nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", authorization)
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

// The whole flow, by hand: metadata, certificate, token, resource.
func TestFlow(t *testing.T) {
	s := newServer(t, imdstest.Options{TokenNotAfter: 48 * time.Hour})
	status, body := do(t, request(t, s, imdstest.Metadata))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, client, body["clientId"])
	require.Equal(t, map[string]any{"vmId": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}, body["cuId"])

	status, body = do(t, request(t, s, imdstest.Issue))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, s.TokenURL(), body["mtls_authentication_endpoint"])
	der, err := base64.StdEncoding.DecodeString(body["certificate"].(string))
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	require.True(t, testKey().PublicKey.Equal(leaf.PublicKey))
	require.Equal(t, client, leaf.Subject.CommonName)
	require.Equal(t, "managedidentitysnissuer.login.microsoft.com", leaf.Issuer.CommonName)

	sum := sha256.Sum256(leaf.Raw)
	thumbprint := base64.RawURLEncoding.EncodeToString(sum[:])
	status, body, err = postForm(over(s, leaf), s, form("mtls_pop"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "mtls_pop", body["token_type"])
	bound := body["access_token"].(string)
	_, body, err = postForm(over(s, leaf), s, form("bearer"))
	require.NoError(t, err)
	bearer := body["access_token"].(string)

	require.Equal(t, http.StatusOK, call(t, over(s, leaf), s, "mtls_pop "+bound))
	require.Equal(t, http.StatusOK, call(t, over(s, leaf), s, "Bearer "+bearer))
	require.Equal(t, http.StatusOK, call(t, over(s, nil), s, "Bearer "+bearer))
	require.Empty(t, s.Rejections())
	require.Equal(t, 4, s.Presented(thumbprint))
	require.Equal(t, imdstest.Counts{
		Metadata: 1, Issue: 1, Issued: 1, Token: 2, TokenIssued: 2, Resource: 3, ResourceAuthorized: 3,
		TokenConnections: 2, ResourceConnections: 2,
	}, s.Counts())

	// RFC 8705: a bound token is worth nothing anywhere else.
	stranger, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	for _, wrong := range []struct {
		client        *http.Client
		authorization string
	}{
		{over(s, stranger), "mtls_pop " + bound}, {over(s, nil), "mtls_pop " + bound}, {over(s, leaf), "Bearer " + bound},
		{over(s, leaf), "mtls_pop " + bearer}, {over(s, leaf), "Basic " + bearer}, {over(s, leaf), "mtls_pop " + bound + "x"}, {over(s, leaf), ""},
	} {
		before := len(s.Rejections())
		require.Equal(t, http.StatusUnauthorized, call(t, wrong.client, s, wrong.authorization))
		require.Len(t, s.Rejections(), before+1)
	}
}

// Five lines give a test an Azure VM.
func ExampleNewServer() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	options := server.ClientOptions()   // for ImdsV2MtlsCredentialOptions.ClientOptions
	transport := server.MTLSTransport() // for ImdsV2MtlsCredentialOptions.MTLSTransport
	fmt.Println(options.Transport != nil, transport.TLSClientConfig != nil)
	// Output: true true
}

// Refuse makes the servers refuse one certificate, as they do when a key was lost or a certificate revoked.
func ExampleServer_Refuse() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	const unknownCA = 48 // RFC 8446, section 6
	server.Refuse("the x5t#S256 of the certificate", unknownCA)
	fmt.Println(server.Counts().Faults)
	// Output: 0
}
