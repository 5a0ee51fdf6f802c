package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// TestOpenSSL: OpenSSL, as strict as it can be, takes the certificate in both versions, and its refusal heals.
func TestOpenSSL(t *testing.T) {
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			server := imdstest.NewServer(nil)
			defer server.Close()
			store := &countingStore{}
			dir := t.TempDir()
			certFile, keyFile, own := selfSigned(t, dir)
			pool := poolOf(own, server.Authority())
			template := server.MTLSTransport()
			template.TLSClientConfig = &tls.Config{RootCAs: pool}
			cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
				ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
			})
			require.NoError(t, err)
			defer cred.Close()

			start := func() string {
				host := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
				writePEM(t, filepath.Join(dir, "ca.pem"), server.Authority())
				startServer(t, dir, host, pool, "openssl", "s_server", "-accept", host, "-cert", certFile, "-key", keyFile,
					"-CAfile", filepath.Join(dir, "ca.pem"), "-Verify", "1", "-verify_return_error", "-purpose", "sslclient", "-x509_strict",
					"-www", version)
				return "https://" + host
			}
			client := cred.Client("https://resource.example/.default")
			get := func(url string) {
				resp, err := client.Get(url)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, http.StatusOK, resp.StatusCode)
				require.Contains(t, string(body), store.latest.ClientID, "s_server tells the certificate it was shown")
			}
			get(start())
			require.Equal(t, 1, server.Counts().Issued)

			server.RotateAuthority() // the next s_server takes no certificate of the old authority
			get(start())
			require.Equal(t, 2, server.Counts().Issued)
			require.Equal(t, 1, store.evictions)
		})
	}
}
