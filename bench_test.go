package azmtls_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// imdsV1 is as much of IMDS v1 as azidentity.ManagedIdentityCredential needs.
var imdsV1 = transporter(func(req *http.Request) (*http.Response, error) {
	body := fmt.Sprintf(`{"access_token":"token","expires_in":"3600","expires_on":"4102444800","resource":%q,"token_type":"Bearer"}`, req.URL.Query().Get("resource"))
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{"Content-Type": {"application/json"}},
		Body:       io.NopCloser(strings.NewReader(body)),
		Request:    req,
	}, nil
})

// BenchmarkGetTokenCached puts the cached path beside that of azidentity, with one token in the cache and with fifty.
func BenchmarkGetTokenCached(b *testing.B) {
	theirs, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: imdsV1}})
	require.NoError(b, err)
	ours, err := azmtls.NewImdsV2MtlsCredential(newFixture(b, imdstest.Options{}, nil).options())
	require.NoError(b, err)
	defer ours.Close()
	for _, scopes := range []int{1, 50} {
		for _, c := range []struct {
			name string
			cred azcore.TokenCredential
		}{{"azmtls", ours}, {"azidentity", theirs}} {
			b.Run(fmt.Sprintf("%d/%s", scopes, c.name), func(b *testing.B) {
				requests := make([]policy.TokenRequestOptions, scopes)
				for i := range requests {
					requests[i].Scopes = []string{fmt.Sprintf("https://resource-%d/.default", i)}
					_, err := c.cred.GetToken(b.Context(), requests[i])
					require.NoError(b, err)
				}
				ctx := b.Context()
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, err := c.cred.GetToken(ctx, requests[i%scopes]); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// BenchmarkBoundClient puts a request of a bound client beside one of an unbound client to the same server, which asks for a
// certificate and looks at nothing, so that the difference is the client's. Both run in turns, 15 times, in one process:
// what else the machine does falls on both. It reports the medians, and that of the ratios.
func BenchmarkBoundClient(b *testing.B) {
	const rounds, requests = 15, 1000
	resource := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	resource.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	resource.StartTLS()
	defer resource.Close()
	options := newFixture(b, imdstest.Options{}, nil).options()
	options.Cache = &mtls.Cache{}
	options.MTLSTransport.TLSClientConfig.RootCAs.AddCert(resource.Certificate())
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	require.NoError(b, err)
	defer cred.Close()
	bound := &azcore.ClientOptions{}
	cred.BindClientOptions(bound)
	plain := &azcore.ClientOptions{Transport: &http.Client{Transport: options.MTLSTransport}}
	round := func(client runtime.Pipeline) time.Duration {
		start := time.Now()
		for range requests {
			req, err := runtime.NewRequest(b.Context(), http.MethodGet, resource.URL)
			require.NoError(b, err)
			resp, err := client.Do(req)
			require.NoError(b, err)
			require.Equal(b, http.StatusOK, resp.StatusCode)
		}
		return time.Since(start) / requests
	}
	ours, theirs := sdkClient(cred, bound), sdkClient(cred, plain)
	round(ours)
	round(theirs)
	for b.Loop() {
		var with, without, ratio []float64
		for range rounds {
			a, b := round(ours), round(theirs)
			with, without = append(with, float64(a)), append(without, float64(b))
			ratio = append(ratio, float64(a)/float64(b))
		}
		b.ReportMetric(median(with), "ns/bound")
		b.ReportMetric(median(without), "ns/unbound")
		b.ReportMetric(median(ratio), "ratio")
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
