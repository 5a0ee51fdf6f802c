package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// TestNginxRefusesAnUploadEarly: nginx answers as soon as it has seen the certificate, long before it has read 8 MiB.
// The upload heals all the same, from its start, without azcore's retries, and arrives whole and once.
func TestNginxRefusesAnUploadEarly(t *testing.T) {
	const rounds = 6
	payload := make([]byte, 8<<20)
	_, err := rand.Read(payload)
	require.NoError(t, err)
	for _, protocols := range []string{"TLSv1.2", "TLSv1.3"} {
		t.Run(protocols, func(t *testing.T) {
			arrived := 0
			backend := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || !bytes.Equal(body, payload) {
					w.WriteHeader(http.StatusBadRequest)
				}
				arrived++
				_, _ = fmt.Fprint(w, len(body))
			}))
			defer backend.Close()
			server := imdstest.NewServer(nil)
			defer server.Close()
			creds := make([]*azmtls.ImdsV2MtlsCredential, rounds) // each has a budget of its own
			stores := make([]*countingStore, rounds)
			pool := server.CertPool()
			for n := range creds {
				stores[n] = &countingStore{}
				creds[n], err = azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
					ClientOptions: server.ClientOptions(), Store: stores[n], Cache: &mtls.Cache{},
					MTLSTransport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
				})
				require.NoError(t, err)
				defer creds[n].Close()
				scopes := []string{"https://vault.azure.net/.default"}
				_, err = creds[n].GetToken(t.Context(), policy.TokenRequestOptions{Scopes: scopes})
				require.NoError(t, err)
			}
			server.RotateAuthority() // nginx takes no certificate of the old one
			front := startNginx(t, protocols, "", server.Authority(), &azurite{host: backend.Listener.Addr().String()})
			pool.AddCert(front.own)
			for n, cred := range creds {
				options := azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
				cred.BindClientOptions(&options)
				client := runtime.NewPipeline("test", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{
					runtime.NewBearerTokenPolicy(cred, []string{"https://storage.azure.com/.default"}, nil),
				}}, &options)
				req, err := runtime.NewRequest(t.Context(), http.MethodPut, front.url+"/blob")
				require.NoError(t, err)
				reader := streaming.NopCloser(bytes.NewReader(payload))
				require.NoError(t, req.SetBody(reader, "application/octet-stream"))
				resp, err := client.Do(req)
				require.NoError(t, err, "round %d", n)
				body, err := runtime.Payload(resp)
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
				require.Equal(t, fmt.Sprint(len(payload)), string(body))
				require.Equal(t, 1, stores[n].evictions)
				require.Equal(t, n+1, arrived, "once")
			}
			require.Equal(t, 2*rounds, server.Counts().Issued)
			require.Empty(t, server.Rejections())
		})
	}
}
