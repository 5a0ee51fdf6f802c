package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/containers/azcontainerregistry"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// registry is a small container registry. It changes an Entra token, a field of a form, for tokens of its own, and
// sends its blobs by a redirect to storage, where those have no business.
type registry struct {
	*httptest.Server
	storage *httptest.Server

	mu       sync.Mutex
	served   []string
	problems []string // what a real registry, or its storage, would refuse or should not have seen
}

const (
	refreshToken = "registry.%s.refresh"
	accessToken  = "registry-access"
	blobDigest   = "sha256:9d9595c5d94fb65b824f56e9999527dba9542481580d69feb89056aabaa0aa87"
)

func startRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{}
	r.Server = startAsking(t, http.HandlerFunc(r.serve))
	r.storage = startAsking(t, http.HandlerFunc(r.store))
	return r
}

func (r *registry) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(req.TLS.PeerCertificates) > 0 {
		r.problems = append(r.problems, "a client certificate was presented")
	}
	r.served = append(r.served, req.Method+" "+req.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	switch req.URL.Path {
	case "/oauth2/exchange":
		if problem := checkBearer(req.PostFormValue("access_token"), "https://containerregistry.azure.net"); problem != "" {
			r.problems = append(r.problems, problem)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		expiry := base64.RawStdEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, time.Now().Add(time.Hour).Unix()))
		fmt.Fprintf(w, `{"refresh_token":%q}`, fmt.Sprintf(refreshToken, expiry))
		return
	case "/oauth2/token":
		fmt.Fprintf(w, `{"access_token":%q}`, accessToken)
		return
	}
	if req.Header.Get("Authorization") != "Bearer "+accessToken {
		w.Header().Set("WWW-Authenticate",
			fmt.Sprintf(`Bearer realm="%s/oauth2/token",service="127.0.0.1",scope="registry:catalog:*"`, r.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch req.URL.Path {
	case "/acr/v1/_catalog":
		fmt.Fprint(w, `{"repositories":["evidence"]}`)
	case "/v2/evidence/blobs/" + blobDigest:
		http.Redirect(w, req, r.storage.URL+"/blob", http.StatusTemporaryRedirect)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (r *registry) store(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(req.TLS.PeerCertificates) > 0 || req.Header.Get("Authorization") != "" {
		r.problems = append(r.problems, "a token or a certificate went to storage")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	fmt.Fprint(w, "payload")
}

// TestContainerRegistry: the real SDK client sends its token in a form, where it must be a bearer token, and follows
// the registry's redirect to storage without the registry's token, on another port of the same host.
func TestContainerRegistry(t *testing.T) {
	for name, test := range bindings {
		t.Run(name, func(t *testing.T) {
			server := imdstest.NewServer(nil)
			defer server.Close()
			remote := startRegistry(t)
			cred := newTrusting(t, server, test.tokenType, remote.Server, remote.storage)
			options := azcore.ClientOptions{
				Transport: &http.Client{Transport: trusting(server, remote.Server, remote.storage)},
			}
			want := 0
			if test.bind {
				options.Transport = nil
				cred.BindClientOptions(&options)
				if test.tokenType == azmtls.TokenTypeAuto {
					want = 1
				}
			}
			lines := countLines(t, saysElsewhere)
			clientOptions := azcontainerregistry.ClientOptions{ClientOptions: options}
			client, err := azcontainerregistry.NewClient(remote.URL, cred, &clientOptions)
			require.NoError(t, err)
			page, err := client.NewListRepositoriesPager(nil).NextPage(t.Context())
			require.NoError(t, err)
			require.Equal(t, "evidence", *page.Names[0])
			require.Equal(t, want, lines())
			if !test.bind {
				require.Empty(t, remote.problems)
				return // where net/http takes the token to is not ours then
			}
			blobOptions := azcontainerregistry.BlobClientOptions{ClientOptions: options}
			blobs, err := azcontainerregistry.NewBlobClient(remote.URL, cred, &blobOptions)
			require.NoError(t, err)
			blob, err := blobs.GetBlob(t.Context(), "evidence", blobDigest, nil)
			require.NoError(t, err)
			body, err := io.ReadAll(blob.BlobData)
			require.NoError(t, err)
			require.Equal(t, "payload", string(body))
			require.Empty(t, remote.problems)
			require.Contains(t, remote.served, "POST /oauth2/exchange")
			require.Equal(t, want, lines())
			require.Empty(t, server.Rejections())
		})
	}
}
