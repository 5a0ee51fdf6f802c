package e2e

import (
	"context"
	"crypto"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each location demands a cipher of its own, so that Apache renegotiates, and asks for the certificate, whenever a
// connection comes from the other one.
const apacheLocations = `
<Location /one>
  SSLVerifyClient require
  SSLCipherSuite ECDHE-ECDSA-AES128-GCM-SHA256
</Location>
<Location /two>
  SSLVerifyClient require
  SSLCipherSuite ECDHE-ECDSA-AES256-GCM-SHA384
</Location>
MaxKeepAliveRequests 0
`

// countingKeys are software keys that count their signatures.
type countingKeys struct{ signatures atomic.Int32 }

func (k *countingKeys) Key(ctx context.Context) (mtls.Key, error) {
	key, err := mtls.SoftwareKeys{}.Key(ctx)
	return countingKey{key, k}, err
}

type countingKey struct {
	mtls.Key
	keys *countingKeys
}

func (k countingKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.keys.signatures.Add(1)
	return k.Key.Sign(rand, digest, opts)
}

// TestEndlessRenegotiation: a server that wants to see the certificate again and again gets ten signatures on a
// connection. A request that may be repeated goes on over another one; any other ends in an error that says so. The
// binding is left alone.
func TestEndlessRenegotiation(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	template := server.MTLSTransport()
	var dialed atomic.Int32
	template.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	url := startApacheWith(t, "-all +TLSv1.2", apacheLocations, server.Authority(), template.TLSClientConfig.RootCAs)
	store, keys := &countingStore{}, &countingKeys{}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(), MTLSTransport: template,
		Store: store, Cache: &mtls.Cache{}, KeyProvider: keys,
	})
	require.NoError(t, err)
	defer cred.Close()
	client := cred.Client("https://vault.azure.net/.default")
	send := func(method string, n int) error {
		body := strings.NewReader(strings.Repeat("x", len(method)-len(http.MethodGet))) // a POST has one
		req, err := http.NewRequestWithContext(t.Context(), method, url+[]string{"/one", "/two"}[n%2]+"/page", body)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		return resp.Body.Close()
	}
	require.NoError(t, send(http.MethodGet, 0)) // signs for the certificate request and the token endpoint too
	signatures, connections := keys.signatures.Load()-1, dialed.Load()
	for n := 1; n < 35; n++ {
		require.NoError(t, send(http.MethodGet, n))
		require.EqualValues(t, n+1, keys.signatures.Load()-signatures)
		require.EqualValues(t, n/10, dialed.Load()-connections, "ten for each connection")
	}
	for n := 35; n < 40; n++ {
		require.NoError(t, send(http.MethodPost, n))
	}
	require.ErrorContains(t, send(http.MethodPost, 40), "renegotiated more than 10 times on one connection")
	require.EqualValues(t, 40, keys.signatures.Load()-signatures, "no signature more")
	require.NoError(t, send(http.MethodPost, 40), "the next request has another connection")
	require.Zero(t, store.evictions)
	require.Equal(t, 1, server.Counts().Issued)
}

// TestRenegotiationWithoutAnAnswer: a server that renegotiates and never answers holds up a request no longer than ten
// times.
func TestRenegotiationWithoutAnAnswer(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	dir := t.TempDir()
	certFile, keyFile, own := selfSigned(t, dir)
	template := server.MTLSTransport()
	template.TLSClientConfig.RootCAs.AddCert(own)
	writePEM(t, filepath.Join(dir, "ca.pem"), server.Authority())
	commands, typed, err := os.Pipe()
	require.NoError(t, err)
	defer typed.Close()
	host := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	startServerReading(t, commands, dir, host, poolOf(own), "openssl", "s_server", "-accept", host,
		"-cert", certFile, "-key", keyFile, "-CAfile", filepath.Join(dir, "ca.pem"), "-tls1_2")
	store := &countingStore{}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
	})
	require.NoError(t, err)
	defer cred.Close()
	done := make(chan error, 1)
	go func() {
		_, err := cred.Client("https://vault.azure.net/.default").Get("https://" + host)
		done <- err
	}()
	require.Eventually(t, func() bool {
		output, err := os.ReadFile(filepath.Join(dir, "output.log"))
		return err == nil && strings.Contains(string(output), "GET / HTTP/1.1")
	}, 30*time.Second, 10*time.Millisecond, "the request has arrived")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; {
		select {
		case err := <-done:
			require.ErrorContains(t, err, "renegotiated more than 10 times on one connection")
			require.Zero(t, store.evictions)
			require.Equal(t, 1, server.Counts().Issued)
			return
		case <-tick.C:
			_, err := typed.WriteString("R\n") // s_server renegotiates, and asks for the certificate
			require.NoError(t, err)
			require.True(t, time.Now().Before(deadline), "the request is still under way")
		}
	}
}

// TestEvidenceBelongsToItsConnection: while one host renegotiates, and gets the certificate, another resets its
// connections before it has asked for anything. That says nothing of the certificate.
func TestEvidenceBelongsToItsConnection(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtHello, Do: imdstest.Reset{}})
	template := server.MTLSTransport()
	url := startApache(t, "-all +TLSv1.2 +TLSv1.3", server.Authority(), template.TLSClientConfig.RootCAs)
	store := &countingStore{}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
	})
	require.NoError(t, err)
	defer cred.Close()
	client := cred.Client("https://vault.azure.net/.default")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range 6 {
				resp, err := client.Post(url+"/secure/page", "text/plain", strings.NewReader("payload"))
				if assert.NoError(t, err) {
					assert.NotEqual(t, http.StatusForbidden, resp.StatusCode)
					assert.NotEmpty(t, resp.Header.Get("Client-CN"), "it was asked for the certificate")
					assert.NoError(t, resp.Body.Close())
				}
				if n%2 == 0 {
					assert.NoError(t, cred.Close()) // the next request needs a new connection, and renegotiates
				}
			}
		})
		wg.Go(func() {
			for range 6 {
				_, err := client.Get(server.ResourceURL())
				assert.Error(t, err)
				var refusal *mtls.Refusal
				assert.NotErrorAs(t, err, &refusal)
			}
		})
	}
	wg.Wait()
	require.Zero(t, store.evictions)
	require.Equal(t, 1, server.Counts().Issued)
}
