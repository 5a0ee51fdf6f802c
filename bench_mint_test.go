package azmtls_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/compare"
	"github.com/azmtls/azmtls/internal/csr"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// byHand gets a token with what cannot be left out: a key, the two requests to IMDS, the handshake and the request to
// Entra. It checks and remembers nothing.
type byHand struct {
	b       *testing.B
	server  *imdstest.Server
	makeKey bool
}

func (h byHand) key() *rsa.PrivateKey {
	if !h.makeKey {
		return testKey()
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(h.b, err)
	return key
}

func (h byHand) token() (ns float64) {
	start := time.Now()
	made := make(chan *rsa.PrivateKey, 1)
	go func() { made <- h.key() }()

	imds := &http.Transport{}
	defer imds.CloseIdleConnections()
	var metadata struct {
		ClientID, TenantID string
		CuID               json.RawMessage
	}
	h.imds(imds, http.MethodGet, "getplatformmetadata", nil, &metadata)
	key := <-made
	request, err := csr.New(key, csr.Params{ClientID: metadata.ClientID, TenantID: metadata.TenantID, CuID: metadata.CuID})
	require.NoError(h.b, err)
	body, err := json.Marshal(map[string]string{"csr": base64.StdEncoding.EncodeToString(request)})
	require.NoError(h.b, err)
	var issued struct {
		ClientID    string `json:"client_id"`
		Certificate []byte
		Endpoint    string `json:"mtls_authentication_endpoint"`
	}
	h.imds(imds, http.MethodPost, "issuecredential", body, &issued)
	leaf, err := x509.ParseCertificate(issued.Certificate)
	require.NoError(h.b, err)

	entra := h.server.MTLSTransport()
	defer entra.CloseIdleConnections()
	entra.TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}}
	form := url.Values{
		"client_id": {issued.ClientID}, "grant_type": {"client_credentials"}, "scope": {storage}, "token_type": {"bearer"},
	}
	req, err := http.NewRequestWithContext(h.b.Context(), http.MethodPost,
		issued.Endpoint+"/"+metadata.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	require.NoError(h.b, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var token struct {
		Value string `json:"access_token"`
	}
	h.do(entra, req, &token)
	require.NotEmpty(h.b, token.Value)
	return float64(time.Since(start))
}

func (h byHand) imds(transport *http.Transport, method, name string, body []byte, answer any) {
	req, err := http.NewRequestWithContext(h.b.Context(), method,
		h.server.IMDSURL()+"/metadata/identity/"+name+"?cred-api-version=2.0", bytes.NewReader(body))
	require.NoError(h.b, err)
	req.Header.Set("Metadata", "true")
	req.Header.Set("x-ms-client-request-id", uuid.NewString())
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	h.do(transport, req, answer)
}

func (h byHand) do(transport *http.Transport, req *http.Request, answer any) {
	resp, err := transport.RoundTrip(req)
	require.NoError(h.b, err)
	defer resp.Body.Close()
	require.Equal(h.b, http.StatusOK, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(h.b, err)
	require.NoError(h.b, json.Unmarshal(body, answer))
}

// latency is how long the simulated IMDS and Entra take for every answer, in addition to what they need.
const latency = 20 * time.Millisecond

// simulated starts a simulator for benchmarks, and tells how many goroutines run when it has nothing to do.
func simulated(b *testing.B, delay time.Duration) (server *imdstest.Server, goroutines int) {
	b.Helper()
	server = imdstest.NewServer(nil)
	b.Cleanup(func() {
		server.Close()
		require.Empty(b, server.Rejections())
	})
	b.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.IMDSURL())
	for _, endpoint := range []imdstest.Endpoint{imdstest.Metadata, imdstest.Issue, imdstest.Token} {
		if delay > 0 {
			server.Inject(imdstest.Fault{Endpoint: endpoint, Do: imdstest.Delay(delay)})
		}
	}
	return server, runtime.NumGoroutine()
}

// coldStart makes a credential, gets its first token, and returns what both took. It speaks to IMDS over connections of
// its own.
func coldStart(b *testing.B, server *imdstest.Server, keys mtls.KeyProvider) (*azmtls.ImdsV2MtlsCredential, float64) {
	b.Helper()
	options := onRealClock(b, server)
	options.Transport, options.KeyProvider = nil, keys
	start := time.Now()
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	require.NoError(b, err)
	_, err = cred.GetToken(b.Context(), policy.TokenRequestOptions{Scopes: []string{storage}})
	took := float64(time.Since(start))
	require.NoError(b, err)
	return cred, took
}

// BenchmarkColdStart gets the first token, beside the sum of what cannot be left out. A new key is made beside the
// request for metadata, by hand too.
func BenchmarkColdStart(b *testing.B) {
	for name, test := range map[string]struct {
		delay time.Duration
		keys  mtls.KeyProvider
	}{
		"key_at_hand":      {0, &keys{}},
		"key_at_hand_20ms": {latency, &keys{}},
		"new_key_20ms":     {latency, mtls.SoftwareKeys{}},
	} {
		b.Run(name, func(b *testing.B) {
			server, goroutines := simulated(b, test.delay)
			hand := byHand{b, server, test.keys == mtls.KeyProvider(mtls.SoftwareKeys{})}
			compare.Turns(b, func() float64 {
				cred, took := coldStart(b, server, test.keys)
				require.NoError(b, cred.Close())
				settle(b, goroutines)
				return took
			}, func() float64 {
				took := hand.token()
				settle(b, goroutines)
				return took
			})
		})
	}
}

// BenchmarkHeal gets a token when the binding in use has gone bad, which its handshake shows, beside a cold start.
// After that the spare key, if there is one, was made.
func BenchmarkHeal(b *testing.B) {
	for name, test := range map[string]struct {
		delay time.Duration
		keys  mtls.KeyProvider
	}{
		"spare_key":        {0, mtls.SoftwareKeys{}},
		"spare_key_20ms":   {latency, mtls.SoftwareKeys{}},
		"key_at_hand":      {0, &keys{}},
		"key_at_hand_20ms": {latency, &keys{}},
	} {
		b.Run(name, func(b *testing.B) {
			server, goroutines := simulated(b, test.delay)
			var cold float64
			compare.Turns(b, func() (healed float64) {
				var cred *azmtls.ImdsV2MtlsCredential
				cred, cold = coldStart(b, server, test.keys)
				cred.Client(storage).CloseIdleConnections()
				settle(b, goroutines)
				issued := server.Counts().Issued
				server.Inject(imdstest.Fault{
					Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1,
				})
				start := time.Now()
				_, err := cred.GetToken(b.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
				healed = float64(time.Since(start))
				require.NoError(b, err)
				require.Equal(b, issued+1, server.Counts().Issued)
				require.NoError(b, cred.Close())
				settle(b, goroutines)
				return healed
			}, func() float64 { return cold })
		})
	}
}
