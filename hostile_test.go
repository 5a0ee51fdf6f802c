package azmtls_test

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// Whatever IMDS writes into its answers, no connection is made but to an https host that it names plainly: not over
// plain http, not to what hides behind userinfo, a query or a fragment, not to a path that a tenant smuggles in.
func TestHostileIMDSLeadsNowhere(t *testing.T) {
	endpoints := []any{
		"http://evil.example", "HTTP://evil.example", "ftp://evil.example", "file:///etc/passwd", "javascript:alert(1)",
		"https://login.example@evil.example", "https://u:p@evil.example", "https://evil.example?x=", "https://evil.example#",
		"https://evil.example/#/", `https://login.example\@evil.example`, "https://evil.example\r\nX: y", "//evil.example",
		"https://", "https://:443", "https://evil.example:", "https://evil.example:0", "https://[fe80::1%25eth0]", "", nil,
		42, []string{"https://evil.example"}, map[string]string{"https": "evil.example"},
	}
	tenants := []any{
		"", nil, 42, "..", "../evil", tenant + "/../evil", tenant + "?", tenant + "#", tenant + "@evil.example",
		"%2e%2e", "99999999-8888-7777-6666-555555555556", tenant + "\r\n", "common", "organizations",
	}
	type place struct {
		endpoint imdstest.Endpoint
		member   string
		values   []any
	}
	for _, p := range []place{
		{imdstest.Issue, "mtls_authentication_endpoint", endpoints},
		{imdstest.Issue, "tenant_id", tenants},
		{imdstest.Issue, "client_id", tenants},
		{imdstest.Metadata, "tenantId", append(tenants, tenant+"\x00")},
		{imdstest.Metadata, "attestationEndpoint", endpoints},
	} {
		t.Run(string(p.endpoint)+" "+p.member, func(t *testing.T) {
			for _, value := range p.values {
				f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
					o.MTLSTransport.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
						t.Errorf("%v leads to %s", value, address)
						return nil, io.EOF
					}
					o.Attestation = attestFunc(func() (string, error) {
						if p.member == "attestationEndpoint" {
							t.Errorf("%v leads to an attestation", value)
						}
						return "jwt", nil
					})
				})
				f.server.Inject(changed(p.endpoint, p.member, value))
				_, err := f.token(vault)
				require.Error(t, err, value)
				require.Zero(t, f.server.Counts().Token, value)
			}
		})
	}
}

// An Entra that writes without end, in whatever form, costs bounded memory and ends with an error.
func TestHostileEntraIsBounded(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"endless token": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"`)
			endless(w, r, strings.Repeat("a", 64<<10))
		},
		"endless white space": func(w http.ResponseWriter, r *http.Request) { endless(w, r, strings.Repeat("\n", 64<<10)) },
		"endless error": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			endless(w, r, strings.Repeat("[", 64<<10))
		},
		"zeros in gzip": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			endless(zip, r, strings.Repeat("\x00", 1<<20))
		},
		"endless headers": func(w http.ResponseWriter, r *http.Request) {
			raw(w, r, "HTTP/1.1 200 OK\r\n", "X-Filler: "+strings.Repeat("a", 8<<10)+"\r\n")
		},
		"an endless header": func(w http.ResponseWriter, r *http.Request) {
			raw(w, r, "HTTP/1.1 200 OK\r\nX-Filler: ", strings.Repeat("a", 8<<10))
		},
		"an endless status": func(w http.ResponseWriter, r *http.Request) {
			raw(w, r, "HTTP/1.1 200 ", strings.Repeat("a", 8<<10))
		},
		"early hints without end": func(w http.ResponseWriter, r *http.Request) {
			raw(w, r, "", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			entra := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				handler(w, r)
			}))
			entra.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
			entra.StartTLS()
			t.Cleanup(entra.Close)
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.MTLSTransport.TLSClientConfig.InsecureSkipVerify = true
				o.MTLSTransport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, entra.Listener.Addr().String())
				}
			})
			f.clock.Manual() // no limit of ours ends it: its size does
			most := watchHeap(t)
			_, err := f.token(vault)
			require.Error(t, err)
			require.Less(t, most(), uint64(96<<20), "bytes of heap")
			require.LessOrEqual(t, asked.Load(), int64(4), "requests: one, and azcore's three retries")
			require.Equal(t, 1, f.server.Counts().Issued, "the binding is not to blame")
		})
	}
}

// raw answers with bytes of its own: how they begin, and what follows without end.
func raw(w http.ResponseWriter, r *http.Request, begin, follows string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, begin)
	endless(conn, r, follows)
}

// endless writes a text until nobody reads it any more.
func endless(w io.Writer, r *http.Request, text string) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

// watchHeap returns a function that returns by how much the heap grew at most since.
func watchHeap(t *testing.T) func() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	before, most, done, stopped := stats.HeapAlloc, atomic.Uint64{}, make(chan struct{}), make(chan struct{})
	look := func() {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		if now.HeapAlloc > before {
			most.Store(max(most.Load(), now.HeapAlloc-before))
		}
	}
	stop := sync.OnceFunc(func() {
		close(done)
		<-stopped
	})
	t.Cleanup(stop) // also where the test ended before it asked
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				look()
			}
		}
	}()
	return func() uint64 {
		stop()
		look()
		return most.Load()
	}
}
