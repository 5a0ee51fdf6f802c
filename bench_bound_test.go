package azmtls_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/compare"
	"github.com/stretchr/testify/require"
)

// boundAndUnbound returns functions that send a request, one with a client that is bound to a credential and one with a
// client that is not, to the same server, which asks for a certificate and looks at nothing: the difference is the
// client's.
func boundAndUnbound(t testing.TB) (bound, unbound func()) {
	resource := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	resource.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	resource.StartTLS()
	t.Cleanup(resource.Close)
	server := imdstest.NewServer(nil)
	t.Cleanup(server.Close)
	options := onRealClock(t, server)
	options.TokenType = azmtls.TokenTypeMtlsPoP
	options.MTLSTransport.TLSClientConfig.RootCAs.AddCert(resource.Certificate())
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cred.Close()) })
	request := func(options *azcore.ClientOptions) func() {
		client := sdkClient(cred, options)
		return func() {
			req, err := runtime.NewRequest(t.Context(), http.MethodGet, resource.URL)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status)
			}
		}
	}
	boundOptions := &azcore.ClientOptions{}
	cred.BindClientOptions(boundOptions)
	return request(boundOptions), request(&azcore.ClientOptions{Transport: &http.Client{Transport: options.MTLSTransport}})
}

// BenchmarkBoundClient sends requests with a bound client, and with an unbound one.
func BenchmarkBoundClient(b *testing.B) {
	const requests = 100
	bound, unbound := boundAndUnbound(b)
	compare.Turns(b, compare.Each(requests, bound), compare.Each(requests, unbound))
	b.ReportMetric(testing.AllocsPerRun(1000, bound), "allocs/ours")
	b.ReportMetric(testing.AllocsPerRun(1000, unbound), "allocs/theirs")
}

// A request of a bound client costs at most 6 allocations more than one of an unbound client.
func TestBoundRequestAllocations(t *testing.T) {
	if stride > 1 {
		t.Skip(
			"under the race detector sync.Pool forgets at random, which counts as allocations; make unit counts without it",
		)
	}
	bound, unbound := boundAndUnbound(t)
	bound()
	unbound()
	require.LessOrEqual(t, testing.AllocsPerRun(1000, bound)-testing.AllocsPerRun(1000, unbound), 6.0)
}
