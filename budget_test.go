package azmtls_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// asked is the lifetime of tokens that are gone after two minutes: whoever asks then has Entra asked.
const asked = 100 * time.Second

// invalidClient and stale are how Entra refuses a binding.
var (
	invalidClient = imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}
	stale         = imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS1000901"}
)

// nginxRefuses is how nginx refuses a client certificate.
var nginxRefuses = imdstest.Respond{
	Status: 400, Header: http.Header{"Content-Type": {"text/html"}},
	Body: "<html>\r\n<head><title>400 The SSL certificate error</title></head>\r\n<body>\r\n</body></html>",
}

// vaultRefuses is how Key Vault says that token and certificate do not match.
var vaultRefuses = imdstest.Respond{
	Status: 401, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}},
	Body: `{"error":{"code":"Unauthorized","innererror":{"code":"MtlsCnfClaimRequestDataValidationFailed"}}}`,
}

// alternately has a fault strike the second call, the fourth, and so on. Each copy strikes once, and sees only the
// calls that no earlier one struck.
func alternately(server *imdstest.Server, fault imdstest.Fault) {
	fault.Times = 1
	for fault.Skip = 1; fault.Skip <= 200; fault.Skip++ {
		server.Inject(fault)
	}
}

// burst makes so many calls at once and returns how many failed.
func burst(n int, call func(n int) error) (failed int) {
	var failures atomic.Int32
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if call(i) != nil {
				failures.Add(1)
			}
		})
	}
	wg.Wait()
	return int(failures.Load())
}

// A peer that refuses every second request succeeds half of the time. That must not make a mint of every other call,
// nor fail more calls than the peer does: the binding at hand goes on being used.
func TestEverySecondRequestIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		fault    imdstest.Fault
		duration time.Duration
	}{
		"Entra: invalid_client": {imdstest.Fault{Endpoint: imdstest.Token, Do: invalidClient}, 8 * time.Second},
		"Entra: AADSTS1000901":  {imdstest.Fault{Endpoint: imdstest.Token, Do: stale}, 8 * time.Second},
		"nginx":                 {imdstest.Fault{Endpoint: imdstest.Resource, Do: nginxRefuses}, 6 * time.Second},
	} {
		// The most that fail, in percent: a burst that meets a binding nobody has accepted fails whole.
		for atOnce, most := range map[int]int{1: 55, 10: 65} {
			t.Run(fmt.Sprintf("%s, %d at a time", name, atOnce), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, imdstest.Options{TokenLifetime: asked, ResourceHandler: echo}, nil)
				call := func(n int) error {
					_, err := f.asks(fmt.Sprintf("https://resource-%d", n))
					return err
				}
				if test.fault.Endpoint == imdstest.Resource {
					client := f.bound()
					call = func(int) error {
						status, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
						if err == nil && status != http.StatusOK {
							err = fmt.Errorf("status %d", status)
						}
						return err
					}
				}
				alternately(f.server, test.fault)
				calls, failed := int(test.duration/(100*time.Millisecond)), 0
				for n := 0; n < calls; n += atOnce {
					failed += burst(atOnce, func(i int) error { return call(n + i) })
					f.clock.Advance(time.Duration(atOnce) * 100 * time.Millisecond)
				}
				require.LessOrEqual(t, f.server.Counts().Issued, 6)
				require.GreaterOrEqual(t, f.server.Counts().Issued, 3, "it does heal when there is a unit")
				require.LessOrEqual(t, failed*100, most*calls, "%d of %d calls failed", failed, calls)
				require.Greater(t, f.server.Counts().Faults, calls/4, "the binding at hand is presented on")
				f.noRejections()
			})
		}
	}
}

// Entra refuses every binding for ten minutes, while ten calls come in a second. Mints become rare, and so do requests:
// the binding at hand, which nobody has accepted, is tried once a second, and the calls in between cost nothing.
func TestEveryBindingIsRefused(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	remove := f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: invalidClient})
	for range 10 * 60 * 10 {
		_, err := f.asks(vault)
		require.ErrorContains(t, err, "AADSTS700027")
		f.clock.Advance(100 * time.Millisecond)
	}
	require.LessOrEqual(t, f.server.Counts().Issued, 12)
	require.GreaterOrEqual(t, f.server.Counts().Issued, 9)
	require.LessOrEqual(t, f.server.Counts().Token, 10*60+2*12)
	require.GreaterOrEqual(t, f.server.Counts().Token, 10*60/2)
	remove()
	f.clock.Advance(time.Second)
	_, err := f.asks(vault)
	require.NoError(t, err, "there is no lock-out")
}

// hosts has the credential's connections to any name but loopback's go to the resource, which proves to be 127.0.0.1.
func hosts(f **fixture) func(*azmtls.ImdsV2MtlsCredentialOptions) {
	return func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.MTLSTransport.TLSClientConfig.ServerName = "127.0.0.1"
		o.MTLSTransport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, _ := net.SplitHostPort(address); host != "127.0.0.1" {
				address = (*f).server.ResourceURL()[len("https://"):]
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
}

// Forty hosts refuse one request each. All resources together have one budget, and Entra's word has another.
func TestManyHostsRefuseOnce(t *testing.T) {
	for name, test := range map[string]struct {
		host    string
		refusal imdstest.Respond
		every   time.Duration
	}{
		"nginx, at once":            {"host-%d.example", nginxRefuses, 0},
		"nginx, within 4 seconds":   {"host-%d.example", nginxRefuses, 100 * time.Millisecond},
		"Key Vault, in 4 seconds":   {"vault-%d.vault.azure.net", vaultRefuses, 100 * time.Millisecond},
		"Key Vault, a port of each": {"my.vault.azure.net:%d", vaultRefuses, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			var f *fixture
			var refused sync.Map
			refusing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, again := refused.LoadOrStore(r.Host, true); again {
					return
				}
				w.Header().Set("Content-Type", test.refusal.Header.Get("Content-Type"))
				w.WriteHeader(test.refusal.Status)
				_, _ = w.Write([]byte(test.refusal.Body))
			})
			f = newFixture(t, imdstest.Options{ResourceHandler: refusing}, hosts(&f))
			client := f.bound()
			for n := range 40 {
				url := "https://" + fmt.Sprintf(test.host, 1000+n)
				_, _, err := send(t.Context(), client, http.MethodGet, url, "")
				if err != nil {
					require.ErrorContains(t, err, "refused at")
				}
				status, _, err := send(t.Context(), client, http.MethodGet, url, "")
				require.NoError(t, err, "the binding at hand is good enough for the next request")
				require.Equal(t, http.StatusOK, status)
				f.clock.Advance(test.every)
			}
			require.LessOrEqual(t, f.server.Counts().Issued, 5)
			require.Greater(t, f.server.Counts().Issued, 1)

			minted := f.server.Counts().Issued
			require.NoError(t, f.cred.Close())
			f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
			_, err := f.asks(vault)
			require.NoError(t, err, "the resources have not spent what Entra's word needs")
			require.Equal(t, minted+1, f.server.Counts().Issued)
			f.noRejections()
		})
	}
}
