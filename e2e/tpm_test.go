package e2e

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTPMBehindNginx: nginx takes handshakes that a TPM signs, many at once, and a binding in the folder heals when
// nginx refuses it.
func TestTPMBehindNginx(t *testing.T) {
	for _, protocols := range []string{"TLSv1.2", "TLSv1.3"} {
		t.Run(protocols, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "tpm") // t.TempDir's path is too long for a socket
			require.NoError(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			tpm, err := swtpm.Start(dir)
			require.NoError(t, err)
			t.Cleanup(tpm.Stop)
			backend := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "hello")
			}))
			defer backend.Close()
			server := imdstest.NewServer(nil)
			defer server.Close()
			front := startNginx(t, protocols, "", server.Authority(), &azurite{host: backend.Listener.Addr().String()})
			front.pool.AddCert(server.Authority())
			folder := t.TempDir()
			store := tpmstore.Store{Folder: folder}
			cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
				ClientOptions:      server.ClientOptions(),
				MTLSTransport:      &http.Transport{TLSClientConfig: &tls.Config{RootCAs: front.pool}},
				KeyProvider:        tpmstore.Keys{Device: tpm.Socket, Folder: folder},
				Store:              store,
				MinBindingStrength: mtls.StrengthTPM,
				Cache:              &mtls.Cache{},
			})
			require.NoError(t, err)
			defer cred.Close()
			client := cred.Client("https://storage.azure.com/.default")
			get := func() {
				resp, err := client.Get(front.url)
				if !assert.NoError(t, err) {
					return
				}
				body, err := io.ReadAll(resp.Body)
				assert.NoError(t, err)
				assert.NoError(t, resp.Body.Close())
				assert.Equal(t, "hello", string(body))
			}
			var all sync.WaitGroup
			for range 50 {
				all.Go(get)
			}
			all.Wait()
			require.Equal(t, 1, server.Counts().Issued)
			const alias = "system_assigned_managed_identity#att=0"
			first, err := store.Load(t.Context(), alias)
			require.NoError(t, err)

			server.RotateAuthority()
			front.trust(t, server.Authority())
			require.NoError(t, cred.Close()) // so that nginx's old worker can end
			front.reload(t)
			get()
			require.Equal(t, 2, server.Counts().Issued)
			second, err := store.Load(t.Context(), alias)
			require.NoError(t, err)
			require.NotEqual(t, first.Thumbprint(), second.Thumbprint())
			require.Empty(t, server.Rejections())
		})
	}
}
