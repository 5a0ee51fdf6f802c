package e2e

import (
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// apacheConfig demands a certificate for one location only, as Key Vault and IIS do: Apache asks for it by
// renegotiation in TLS 1.2, and by post-handshake authentication in TLS 1.3. It tells what it made of it in a header.
const apacheConfig = `
ServerRoot %[1]s
ServerName 127.0.0.1
PidFile apache.pid
Mutex file:%[1]s
Listen 127.0.0.1:%[2]d
ErrorLog error.log
LoadModule mpm_event_module %[3]s/mod_mpm_event.so
LoadModule authz_core_module %[3]s/mod_authz_core.so
LoadModule headers_module %[3]s/mod_headers.so
LoadModule ssl_module %[3]s/mod_ssl.so
DocumentRoot %[1]s/htdocs
SSLEngine on
SSLCertificateFile server.pem
SSLCertificateKeyFile server.key
SSLCACertificateFile ca.pem
SSLProtocol %[4]s
SSLSessionCache none
<Location /secure>
  SSLVerifyClient require
  Header always set Client-CN "%%{SSL_CLIENT_S_DN_CN}s"
  Header always set Protocol "%%{SSL_PROTOCOL}s"
</Location>
`

const apacheModules = "/usr/lib/apache2/modules"

// startApache runs Apache httpd with the authority whose client certificates it takes, and adds its own certificate to
// the pool.
func startApache(t *testing.T, protocols string, authority *x509.Certificate, pool *x509.CertPool) string {
	t.Helper()
	return startApacheWith(t, protocols, "", authority, pool)
}

// startApacheWith is startApache with more configuration.
func startApacheWith(t *testing.T, protocols, more string, authority *x509.Certificate, pool *x509.CertPool) string {
	t.Helper()
	dir := t.TempDir()
	for _, location := range []string{"secure", "one", "two"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "htdocs", location), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "htdocs", location, "page"), []byte("secret"), 0o644))
	}
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // Apache serves as another user
	_, _, own := selfSigned(t, dir)
	pool.AddCert(own)
	writePEM(t, filepath.Join(dir, "ca.pem"), authority)
	port := freePort(t)
	config := filepath.Join(dir, "httpd.conf")
	text := fmt.Sprintf(apacheConfig, dir, port, apacheModules, protocols) + more
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	host := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	startServer(t, dir, host, poolOf(own), "/usr/sbin/apache2", "-f", config, "-D", "FOREGROUND")
	return "https://" + host
}

// TestApacheAsksLate: a server that asks for the certificate only when it sees the location gets it, whatever TLS
// versions it offers, and a certificate that it refuses there heals.
func TestApacheAsksLate(t *testing.T) {
	for _, protocols := range []string{"-all +TLSv1.2", "-all +TLSv1.2 +TLSv1.3"} {
		t.Run(protocols, func(t *testing.T) {
			server := imdstest.NewServer(nil)
			defer server.Close()
			template := server.MTLSTransport()
			pool := template.TLSClientConfig.RootCAs
			url := startApache(t, protocols, server.Authority(), pool)
			store := &countingStore{}
			cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
				ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
			})
			require.NoError(t, err)
			defer cred.Close()
			client := cred.Client("https://vault.azure.net/.default")
			get := func(url string) {
				resp, err := client.Get(url + "/secure/page")
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
				require.Equal(t, "secret", string(body))
				require.Equal(t, "TLSv1.2", resp.Header.Get("Protocol"))
				require.Equal(t, store.latest.ClientID, resp.Header.Get("Client-CN"))
			}
			for range 3 {
				get(url)
			}
			require.Equal(t, 1, server.Counts().Issued)
			require.Zero(t, store.evictions)

			server.RotateAuthority() // the next Apache takes no certificate of the old authority
			get(startApache(t, protocols, server.Authority(), pool))
			require.Equal(t, 2, server.Counts().Issued)
			require.Equal(t, 1, store.evictions)
		})
	}
}

// TestApacheRefusesLate: Apache trusts another authority, so it refuses every certificate, by an alert in the
// renegotiation. The credential tries one more and says so.
func TestApacheRefusesLate(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	other := imdstest.NewServer(nil)
	defer other.Close()
	template := server.MTLSTransport()
	url := startApache(t, "-all +TLSv1.2 +TLSv1.3", other.Authority(), template.TLSClientConfig.RootCAs)
	store := &countingStore{}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
	})
	require.NoError(t, err)
	defer cred.Close()
	_, err = cred.Client("https://vault.azure.net/.default").Post(url+"/secure/page", "text/plain", strings.NewReader("payload"))
	var refusal *mtls.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, 2, server.Counts().Issued)
	require.Equal(t, 1, store.evictions, "the budget has no unit for the second")
}
