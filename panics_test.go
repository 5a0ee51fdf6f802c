package azmtls_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// net/http runs in goroutines of its own what the connections of bearer requests are made with: a panic there is an
// error of the request, and no end of the process.
func TestPanicsOfBearerRequestsAreErrors(t *testing.T) {
	for name, edit := range map[string]func(*http.Transport){
		"dialer": func(h *http.Transport) {
			h.DialContext = func(context.Context, string, string) (net.Conn, error) { panic("bug") }
		},
		"proxy": func(h *http.Transport) { h.Proxy = func(*http.Request) (*url.URL, error) { panic("bug") } },
		"verification": func(h *http.Transport) {
			h.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { panic("bug") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			cred := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { edit(o.MTLSTransport) })
			var options azcore.ClientOptions
			cred.BindClientOptions(&options)
			options.Retry.MaxRetries = -1
			pipeline := runtime.NewPipeline("test", "v1", runtime.PipelineOptions{}, &options)
			req, err := runtime.NewRequest(t.Context(), http.MethodGet, f.server.ResourceURL())
			require.NoError(t, err)
			_, err = pipeline.Do(req)
			require.ErrorContains(t, err, "bug")
		})
	}
}
