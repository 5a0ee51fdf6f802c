package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// vaultConfig makes Apache ask for the certificate as Key Vault does: late, and only a request with
// x-ms-tokenboundauth. The vault behind it is told what certificate that was.
const vaultConfig = `
ServerRoot %[1]s
ServerName 127.0.0.1
PidFile apache.pid
Mutex file:%[1]s
Listen 127.0.0.1:%[2]d
ErrorLog error.log
LoadModule mpm_event_module %[3]s/mod_mpm_event.so
LoadModule authz_core_module %[3]s/mod_authz_core.so
LoadModule headers_module %[3]s/mod_headers.so
LoadModule proxy_module %[3]s/mod_proxy.so
LoadModule proxy_http_module %[3]s/mod_proxy_http.so
LoadModule ssl_module %[3]s/mod_ssl.so
SSLEngine on
SSLCertificateFile server.pem
SSLCertificateKeyFile server.key
SSLCACertificateFile ca.pem
SSLProtocol -all +TLSv1.2 +TLSv1.3
SSLSessionCache none
<If "%%{HTTP:x-ms-tokenboundauth} == 'true'">
  SSLVerifyClient require
</If>
RequestHeader unset Client-Certificate
RequestHeader set Client-Certificate "%%{SSL_CLIENT_CERT}s"
ProxyPass / %[4]s/
`

// vault is a small Key Vault behind Apache. Its host is my.vault.azure.net, which only its clients resolve to loopback.
type vault struct {
	server  *imdstest.Server
	host    string
	pool    *x509.CertPool
	mu      sync.Mutex
	seen    []string // schemes of the requests that were served
	refused int      // how many requests with these thumbprints ended in MtlsCnfClaimRequestDataValidationFailed
	refuse  map[string]bool
}

func startVault(t *testing.T, server *imdstest.Server) *vault {
	t.Helper()
	v := &vault{server: server, refuse: map[string]bool{}}
	backend := httptest.NewServer(http.HandlerFunc(v.serve))
	t.Cleanup(backend.Close)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	_, _, own := selfSigned(t, dir)
	v.pool = poolOf(own)
	writePEM(t, filepath.Join(dir, "ca.pem"), server.Authority())
	port := freePort(t)
	config := filepath.Join(dir, "httpd.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, vaultConfig, dir, port, apacheModules, backend.URL), 0o600))
	v.host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	startServer(t, dir, v.host, v.pool, "/usr/sbin/apache2", "-f", config, "-D", "FOREGROUND")
	return v
}

// serve is the vault: without a token it sends the challenge that a vault sends, and it takes only bound tokens that
// came with x-ms-tokenboundauth over a connection with their certificate.
func (v *vault) serve(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	w.Header().Set("Content-Type", "application/json")
	if token == "" {
		w.Header().Set(
			"WWW-Authenticate",
			`Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`,
		)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	thumbprint, problem := v.check(scheme, token, r)
	v.mu.Lock()
	defer v.mu.Unlock()
	if problem == "" && v.refuse[thumbprint] {
		v.refused++
		problem = "MtlsCnfClaimRequestDataValidationFailed"
	}
	if problem != "" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":{"code":"Unauthorized","message":"AKV10000","innererror":{"code":%q}}}`, problem)
		return
	}
	v.seen = append(v.seen, scheme)
	fmt.Fprintf(
		w,
		`{"value":"secret of %s","id":"https://my.vault.azure.net/secrets/name/1"}`,
		strings.TrimSuffix(r.URL.Path, "/"),
	)
}

// check compares the token's confirmation with the certificate that Apache saw.
func (v *vault) check(scheme, token string, r *http.Request) (thumbprint, problem string) {
	certificate, err := parseHeader(r.Header.Get("Client-Certificate"))
	switch {
	case scheme != "mtls_pop":
		return "", "scheme " + scheme
	case r.Header.Get("x-ms-tokenboundauth") != "true":
		return "", "x-ms-tokenboundauth is missing"
	case err != nil:
		return "", "no client certificate"
	}
	thumbprint = thumbprintOf(certificate)
	if confirmationOf(token) != thumbprint {
		return thumbprint, "MtlsCnfClaimRequestDataValidationFailed"
	}
	return thumbprint, ""
}

// TestKeyVault: the real SDK client, bound, gets a secret from a vault that asks for the certificate by renegotiation,
// and heals when the vault says that token and certificate do not match.
func TestKeyVault(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	v := startVault(t, server)
	template := server.MTLSTransport()
	v.pool.AddCert(server.Authority())
	template.TLSClientConfig = &tls.Config{RootCAs: v.pool}
	template.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "my.vault.azure.net:") {
			address = v.host
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	store := &countingStore{}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
	})
	require.NoError(t, err)
	defer cred.Close()
	options := azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{}}
	cred.BindClientOptions(&options.ClientOptions)
	client, err := azsecrets.NewClient("https://my.vault.azure.net", cred, &options)
	require.NoError(t, err)
	get := func() {
		secret, err := client.GetSecret(t.Context(), "name", "", nil)
		require.NoError(t, err)
		require.Equal(t, "secret of /secrets/name", *secret.Value)
	}
	get()
	get()
	require.Equal(t, []string{"mtls_pop", "mtls_pop"}, v.seen)
	require.Equal(t, 1, server.Counts().Issued)

	v.mu.Lock()
	v.refuse[store.latest.Thumbprint()] = true
	v.mu.Unlock()
	get()
	require.Equal(t, 1, v.refused)
	require.Equal(t, 2, server.Counts().Issued)
	require.Equal(t, 1, store.evictions)

	secret := azsecrets.SetSecretParameters{Value: ptr("new")}
	_, err = client.SetSecret(t.Context(), "name", secret, nil)
	require.NoError(t, err)
	require.Equal(t, 2, server.Counts().Issued)
	require.Empty(t, server.Rejections())
}

func ptr[T any](v T) *T { return &v }
