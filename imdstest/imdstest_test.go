package imdstest_test

import (
	"bytes"

	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
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
		method, path, body = http.MethodPost, "issuecredential", fmt.Sprintf(`{"csr":%q}`, base64.StdEncoding.EncodeToString(der))
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.IMDSURL()+"/metadata/identity/"+path+"?cred-api-version=2.0", strings.NewReader(body))
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
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func form(tokenType string) url.Values {
	return url.Values{"client_id": {client}, "grant_type": {"client_credentials"}, "scope": {"https://storage.azure.com/.default"}, "token_type": {tokenType}}
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
			key, err := rsa.GenerateKey(rand.Reader, 1024)
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

// A certificate that is no good is refused by the alert that crypto/tls would send, and counts as presented.
func TestCertificatesAreVerified(t *testing.T) {
	another := newServer(t, imdstest.Options{})
	for _, alert := range []uint64{42, 45, 48} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := newServer(t, imdstest.Options{TLSVersion: version, EditCertificate: func(c *x509.Certificate) {
				switch alert {
				case 42:
					c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				case 45:
					c.NotAfter = time.Now().Add(-time.Minute)
				}
			}})
			issuer := s
			if alert == 48 {
				issuer = another
			}
			leaf, err := issuer.IssueCertificate(testKey().Public(), client)
			require.NoError(t, err)
			got, ok := alertOf(handshake(t, s, leaf))
			require.True(t, ok)
			require.Equal(t, alert, got)
			sum := sha256.Sum256(leaf.Raw)
			require.Equal(t, 1, s.Presented(base64.RawURLEncoding.EncodeToString(sum[:])))
		}
	}
}

// handshake connects to the token endpoint with the certificate and returns the error of the handshake or, since a refusal in
// TLS 1.3 comes after it, of the first read.
func handshake(t *testing.T, s *imdstest.Server, leaf *x509.Certificate) error {
	t.Helper()
	config := s.MTLSTransport().TLSClientConfig
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: testKey()}, nil
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.TokenURL(), "https://"), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}

// alertOf returns the number of the TLS alert in an error of crypto/tls.
func alertOf(err error) (uint64, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	return reflect.ValueOf(op.Err).Uint(), true
}

// Every alert arrives with the number that was asked for, in both versions, though crypto/tls would send others.
func TestAlerts(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, alert := range []uint8{40, 42, 43, 44, 45, 46, 47, 48, 49, 51, 70, 80, 116} {
			t.Run(fmt.Sprintf("%s/%d", tls.VersionName(version), alert), func(t *testing.T) {
				t.Parallel()
				s := newServer(t, imdstest.Options{TLSVersion: version})
				leaf, err := s.IssueCertificate(testKey().Public(), client)
				require.NoError(t, err)
				sum := sha256.Sum256(leaf.Raw)
				s.Refuse(base64.RawURLEncoding.EncodeToString(sum[:]), alert)
				err = handshake(t, s, leaf)
				got, ok := alertOf(err)
				require.True(t, ok, "%v", err)
				require.EqualValues(t, alert, got)
			})
		}
	}
}

// Every fault does what its documentation says, in both versions, and is over when it is removed.
func TestFaults(t *testing.T) {
	type outcome struct {
		status int
		err    string
	}
	for name, test := range map[string]struct {
		fault imdstest.Fault
		want  outcome
	}{
		"reset before certificate": {imdstest.Fault{Kind: imdstest.KindResetBeforeCertificate}, outcome{err: "reset"}},
		"EOF before certificate":   {imdstest.Fault{Kind: imdstest.KindEOFBeforeCertificate}, outcome{err: "EOF"}},
		"reset in handshake":       {imdstest.Fault{Kind: imdstest.KindResetInHandshake}, outcome{err: "*"}},
		"EOF in handshake":         {imdstest.Fault{Kind: imdstest.KindEOFInHandshake}, outcome{err: "*"}},
		"reset after handshake":    {imdstest.Fault{Kind: imdstest.KindResetAfterHandshake}, outcome{err: "reset"}},
		"EOF after handshake":      {imdstest.Fault{Kind: imdstest.KindEOFAfterHandshake}, outcome{err: "EOF"}},
		"reset in the body":        {imdstest.Fault{Kind: imdstest.KindResetMidBody}, outcome{err: "reset"}},
		"respond":                  {imdstest.Fault{Kind: imdstest.KindRespond, Status: 429, RetryAfter: 3 * time.Second, Body: "{}"}, outcome{status: 429}},
		"Entra":                    {imdstest.Fault{Kind: imdstest.KindEntraError, OAuthError: "invalid_request", AADSTS: "AADSTS1000901"}, outcome{status: 400}},
		"Entra invalid_client":     {imdstest.Fault{Kind: imdstest.KindEntraError, OAuthError: "invalid_client", AADSTS: "AADSTS700027"}, outcome{status: 401}},
		"malformed":                {imdstest.Fault{Kind: imdstest.KindMalformed}, outcome{err: "EOF"}},
		"edit":                     {imdstest.Fault{Kind: imdstest.KindEdit, Edit: func(m map[string]any) { clear(m) }}, outcome{status: 200}},
		"redirect":                 {imdstest.Fault{Kind: imdstest.KindRedirect}, outcome{err: "EOF"}},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newServer(t, imdstest.Options{TLSVersion: version})
				leaf, err := s.IssueCertificate(testKey().Public(), client)
				require.NoError(t, err)
				fault := test.fault
				fault.Endpoint = imdstest.Token
				remove := s.Inject(fault)
				status, _, err := postForm(over(s, leaf), s, form("bearer"))
				if test.want.err != "" {
					require.Error(t, err)
					if test.want.err != "*" {
						require.ErrorContains(t, err, test.want.err)
					}
				} else {
					require.NoError(t, err)
					require.Equal(t, test.want.status, status)
				}
				require.Equal(t, 1, s.Counts().Faults)
				remove()
				status, _, err = postForm(over(s, leaf), s, form("bearer"))
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, status)
			})
		}
	}
}

// Which calls a fault strikes: by certificate, by call, by rate.
func TestWhenFaultsStrike(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	leaf, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	sum := sha256.Sum256(leaf.Raw)
	run := func(f imdstest.Fault, calls int) (statuses []int) {
		f.Endpoint, f.Kind, f.Status, f.Body = imdstest.Token, imdstest.KindRespond, 503, "{}"
		defer s.Inject(f)()
		for range calls {
			status, _, err := postForm(over(s, leaf), s, form("bearer"))
			require.NoError(t, err)
			statuses = append(statuses, status)
		}
		return statuses
	}
	require.Equal(t, []int{200, 503, 503, 200}, run(imdstest.Fault{Skip: 1, Times: 2}, 4))
	require.Equal(t, []int{200, 200}, run(imdstest.Fault{Thumbprint: "another"}, 2))
	require.Equal(t, []int{503, 503}, run(imdstest.Fault{Thumbprint: base64.RawURLEncoding.EncodeToString(sum[:])}, 2))
	half := run(imdstest.Fault{Rate: 0.5}, 20)
	require.Contains(t, half, 200)
	require.Contains(t, half, 503)
	require.Equal(t, half, run(imdstest.Fault{Rate: 0.5}, 20), "the same calls every time")
}

func TestInjectRefusesNonsense(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	for _, f := range []imdstest.Fault{
		{Endpoint: imdstest.Token},
		{Kind: imdstest.KindHang},
		{Endpoint: imdstest.Token, Kind: imdstest.KindEdit},
		{Endpoint: imdstest.Metadata, Kind: imdstest.KindAlert},
		{Endpoint: imdstest.Issue, Kind: imdstest.KindRespond, Thumbprint: "x"},
		{Endpoint: imdstest.Token, Kind: imdstest.KindResetBeforeCertificate, Thumbprint: "x"},
	} {
		require.Panics(t, func() { s.Inject(f) })
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	for _, kind := range []imdstest.FaultKind{imdstest.KindHang, imdstest.KindHangInHandshake} {
		s := imdstest.NewServer(&imdstest.Options{TenantID: tenant})
		leaf, err := s.IssueCertificate(testKey().Public(), client)
		require.NoError(t, err)
		s.Inject(imdstest.Fault{Endpoint: imdstest.Token, Kind: kind})
		done := make(chan error)
		go func() {
			_, _, err := postForm(over(s, leaf), s, form("bearer"))
			done <- err
		}()
		require.Eventually(t, func() bool { return s.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
		s.Close()
		s.Close()
		require.Error(t, <-done)
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
