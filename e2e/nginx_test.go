package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// nginxConfig demands a client certificate in front of Azurite, which knows bearer tokens only.
const nginxConfig = `
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {}
http {
  access_log off;
  client_max_body_size 0;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  map $http_authorization $bearer { "~^mtls_pop (?<token>.+)$" "Bearer $token"; }
  server {
    listen 127.0.0.1:%[1]d ssl%[2]s;
    ssl_certificate server.pem;
    ssl_certificate_key server.key;
    ssl_client_certificate ca.pem;
    ssl_verify_client on;
    ssl_protocols %[3]s;
    location / {
      proxy_pass https://%[4]s;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Authorization $bearer;
    }
  }
}
`

// nginx is a running nginx.
type nginx struct {
	dir, url string
	own      *x509.Certificate
	pool     *x509.CertPool
	cmd      *exec.Cmd
}

// startNginx runs nginx in front of Azurite, with the authority whose client certificates it takes.
func startNginx(t *testing.T, protocols, http2 string, authority *x509.Certificate, emulator *azurite) *nginx {
	t.Helper()
	dir := t.TempDir()
	_, _, own := selfSigned(t, dir)
	port := freePort(t)
	n := &nginx{dir: dir, own: own, pool: poolOf(own)}
	n.url = "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	n.trust(t, authority)
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, nginxConfig, port, http2, protocols, emulator.host), 0o600))
	n.cmd = startServer(t, dir, n.url[len("https://"):], n.pool, "/usr/sbin/nginx", "-p", dir, "-c", config)
	return n
}

// trust makes the certificates of the authority, and no others, acceptable after the next reload.
func (n *nginx) trust(t *testing.T, authority *x509.Certificate) {
	t.Helper()
	writePEM(t, filepath.Join(n.dir, "ca.pem"), authority)
}

// reload makes nginx read its files anew, and waits until its old worker is gone.
func (n *nginx) reload(t *testing.T) {
	t.Helper()
	before := n.workers(t)
	require.NoError(t, n.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool {
		now := n.workers(t)
		return len(now) == 1 && now[0] != before[0]
	}, 30*time.Second, 20*time.Millisecond)
}

// workers returns the processes that nginx started.
func (n *nginx) workers(t *testing.T) []string {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", n.cmd.Process.Pid))
	require.NoError(t, err)
	return strings.Fields(string(children))
}

// TestBlobBehindNginx: the real SDK client, bound, works through a real mTLS terminator, and heals when that refuses
// the certificate, which nginx says in HTTP and not by an alert.
func TestBlobBehindNginx(t *testing.T) {
	for _, protocols := range []string{"TLSv1.2", "TLSv1.3"} {
		for name, http2 := range map[string]string{"HTTP/1.1": "", "HTTP/2 on offer": " http2"} {
			t.Run(protocols+"/"+name, func(t *testing.T) {
				emulator := startAzurite(t)
				server := imdstest.NewServer(nil)
				defer server.Close()
				front := startNginx(t, protocols, http2, server.Authority(), emulator)
				template := server.MTLSTransport()
				front.pool.AddCert(server.Authority())
				template.TLSClientConfig = &tls.Config{RootCAs: front.pool}
				store := &countingStore{}
				cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
					ClientOptions: server.ClientOptions(), MTLSTransport: template, Store: store, Cache: &mtls.Cache{},
				})
				require.NoError(t, err)
				defer cred.Close()
				options := azblob.ClientOptions{}
				cred.BindClientOptions(&options.ClientOptions)
				client, err := azblob.NewClient(front.url+"/"+account, cred, &options)
				require.NoError(t, err)

				data := upload(t, client)
				require.Equal(t, 1, server.Counts().Issued)

				server.RotateAuthority()
				front.trust(t, server.Authority())
				require.NoError(t, cred.Close()) // so that nginx's old worker can end
				front.reload(t)
				readBack(t, client, data)
				require.Equal(t, 2, server.Counts().Issued)
				require.Equal(t, 1, store.evictions)
				require.Empty(t, server.Rejections())
			})
		}
	}
}
