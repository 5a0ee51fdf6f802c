package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// countingStore keeps the latest binding and counts evictions.
type countingStore struct {
	mu        sync.Mutex
	latest    *mtls.Binding
	evictions int
}

func (s *countingStore) Load(context.Context, string) (*mtls.Binding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil, mtls.ErrNotFound
	}
	return s.latest, nil
}

func (s *countingStore) Save(_ context.Context, _ string, b *mtls.Binding) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = b
	return nil
}

func (s *countingStore) DeleteAll(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = nil
	s.evictions++
	return nil
}

func newCredential(t *testing.T, server *imdstest.Server, store mtls.Store) *azmtls.ImdsV2MtlsCredential {
	t.Helper()
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(),
		MTLSTransport: server.MTLSTransport(),
		Store:         store,
		Cache:         &mtls.Cache{},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cred.Close()) })
	return cred
}

// TestBlobBearer: the real SDK client works with bearer tokens that were obtained over mutual TLS, and does not notice
// that the token endpoint refuses the binding in between.
func TestBlobBearer(t *testing.T) {
	emulator := startAzurite(t)
	server := imdstest.NewServer(nil)
	defer server.Close()
	store := &countingStore{}
	cred := newCredential(t, server, store)
	options := &azblob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: emulator.pool}}},
	}}
	client, err := azblob.NewClient("https://"+emulator.host+"/"+account, cred, options)
	require.NoError(t, err)
	data := upload(t, client)
	require.Equal(t, 1, server.Counts().Issued)
	require.Zero(t, store.evictions)

	server.Refuse(store.latest.Thumbprint(), 48)
	cred = newCredential(t, server, store) // the next process, with the same store
	client, err = azblob.NewClient("https://"+emulator.host+"/"+account, cred, options)
	require.NoError(t, err)
	readBack(t, client, data)
	require.Equal(t, 2, server.Counts().Issued)
	require.Equal(t, 1, store.evictions)
	require.Empty(t, server.Rejections())
}

// TestBlobPoP: the same client, bound, works with proof-of-possession tokens through an mTLS reverse proxy in front of
// the emulator, and does not notice that the proxy refuses the binding in between.
func TestBlobPoP(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			emulator := startAzurite(t)
			server := imdstest.NewServer(&imdstest.Options{
				TLSVersion:       version,
				ResourceHandler:  proxyTo(emulator),
				ResourceAudience: "https://storage.azure.com",
			})
			defer server.Close()
			store := &countingStore{}
			cred := newCredential(t, server, store)
			options := azblob.ClientOptions{}
			cred.BindClientOptions(&options.ClientOptions)
			client, err := azblob.NewClient(server.ResourceURL()+"/"+account, cred, &options)
			require.NoError(t, err)

			data := upload(t, client)
			require.Equal(t, 1, server.Counts().Issued)
			require.Zero(t, store.evictions)

			server.Refuse(store.latest.Thumbprint(), 48)
			require.NoError(t, cred.Close()) // the next request needs a new connection
			readBack(t, client, data)
			require.Equal(t, 2, server.Counts().Issued)
			require.Equal(t, 1, store.evictions)
			require.Empty(t, server.Rejections(), "no bound token was ever sent as Bearer or with another certificate")
			require.Equal(t, server.Counts().Resource, server.Counts().ResourceAuthorized)
		})
	}
}

// proxyTo passes authorised requests on to the emulator, which knows bearer tokens only.
func proxyTo(emulator *azurite) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: emulator.host})
			r.Out.Host = r.In.Host
			_, token, _ := strings.Cut(r.In.Header.Get("Authorization"), " ")
			r.Out.Header.Set("Authorization", "Bearer "+token)
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: emulator.pool}},
	}
}

const (
	container = "evidence"
	name      = "twenty-megabytes.bin"
)

// upload creates a container and puts 20 MB into it, in blocks that are sent at the same time.
func upload(t *testing.T, client *azblob.Client) []byte {
	t.Helper()
	data := make([]byte, 20<<20)
	_, err := rand.Read(data)
	require.NoError(t, err)
	_, err = client.CreateContainer(t.Context(), container, nil)
	require.NoError(t, err)
	_, err = client.UploadStream(
		t.Context(),
		container,
		name,
		bytes.NewReader(data),
		&blockblob.UploadStreamOptions{BlockSize: 2 << 20, Concurrency: 4},
	)
	require.NoError(t, err)
	return data
}

// readBack lists the container and compares what is in it.
func readBack(t *testing.T, client *azblob.Client, data []byte) {
	t.Helper()
	var names []string
	for pager := client.NewListBlobsFlatPager(container, nil); pager.More(); {
		page, err := pager.NextPage(t.Context())
		require.NoError(t, err)
		for _, item := range page.Segment.BlobItems {
			names = append(names, *item.Name)
		}
	}
	require.Equal(t, []string{name}, names)
	resp, err := client.DownloadStream(t.Context(), container, name, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	back, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, back), "what was read is not what was written")
}
