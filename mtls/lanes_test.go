package mtls_test

import (
	"crypto/tls"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onlyTLS13 is a host that asks for no certificate, speaks TLS 1.3, and answers anything older in its own way.
type onlyTLS13 struct {
	*httptest.Server
	mu     sync.Mutex
	older  int      // handshakes of clients that do not offer TLS 1.3
	bodies []string // of the requests that arrived
}

func newOnlyTLS13(t *testing.T, refuse func(conn *net.TCPConn, done <-chan struct{})) *onlyTLS13 {
	s := &onlyTLS13{}
	done := make(chan struct{})
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.bodies = append(s.bodies, r.Method+" "+string(body))
	}))
	s.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
			return nil, nil
		}
		s.mu.Lock()
		s.older++
		s.mu.Unlock()
		refuse(hello.Conn.(*net.TCPConn), done)
		return nil, io.EOF
	}}
	s.StartTLS()
	t.Cleanup(func() { close(done); s.Close() })
	return s
}

func (s *onlyTLS13) seen() (older int, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.older, slices.Clone(s.bodies)
}

// refusalsOfTLS12 are ways to answer a client that offers nothing newer.
func refusalsOfTLS12() map[string]func(conn *net.TCPConn, done <-chan struct{}) {
	alert := func(number byte) func(*net.TCPConn, <-chan struct{}) {
		return func(conn *net.TCPConn, _ <-chan struct{}) {
			_, _ = conn.Write([]byte{21, 3, 3, 0, 2, 2, number}) // fatal
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	return map[string]func(*net.TCPConn, <-chan struct{}){
		"handshake_failure":     alert(40),
		"access_denied":         alert(49),
		"protocol_version":      alert(70),
		"insufficient_security": alert(71),
		"internal_error":        alert(80),
		"reset": func(conn *net.TCPConn, _ <-chan struct{}) {
			_ = conn.SetLinger(0)
			_ = conn.Close()
		},
		"close": func(conn *net.TCPConn, _ <-chan struct{}) { _ = conn.Close() },
		"half-close": func(conn *net.TCPConn, done <-chan struct{}) {
			_ = conn.CloseWrite()
			<-done
		},
		"hang": func(_ *net.TCPConn, done <-chan struct{}) { <-done },
		"words that are not TLS": func(conn *net.TCPConn, _ <-chan struct{}) {
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		},
	}
}

// A host that speaks TLS 1.3 only, and asks for no certificate, gets one try of TLS 1.2. However it answers that, it
// goes back to TLS 1.3 and is reachable, also later. Each request arrives once.
func TestHostWithTLS13Only(t *testing.T) {
	for name, refuse := range refusalsOfTLS12() {
		for _, method := range []string{http.MethodGet, http.MethodPost} { // a POST may not be sent twice
			t.Run(method+"/"+name, func(t *testing.T) {
				t.Parallel()
				server := newOnlyTLS13(t, refuse)
				template := server.Client().Transport.(*http.Transport).Clone()
				if name == "hang" {
					template.TLSHandshakeTimeout = 2 * time.Second // time enough for a busy machine
				}
				b, now := admitted(t)
				transport := mtls.NewTransport(template, b)
				var want []string
				request := func() {
					t.Helper()
					body := strings.NewReader("payload")
					req, err := http.NewRequestWithContext(t.Context(), method, server.URL, body)
					require.NoError(t, err)
					resp, err := transport.Do(req)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					want = append(want, method+" payload")
				}
				request()
				request()
				for range 5 {
					transport.CloseIdleConnections()
					now.Advance(10 * time.Minute)
					request()
				}
				older, bodies := server.seen()
				require.Equal(t, 1, older, "one try of TLS 1.2")
				require.Equal(t, want, bodies)
				require.False(t, b.Evicted())
			})
		}
	}
}

// Many meet such a host at the same time. All are served, whichever of them tries TLS 1.2.
func TestHostWithTLS13OnlyInAStampede(t *testing.T) {
	for name, refuse := range refusalsOfTLS12() {
		if name == "hang" {
			continue // it differs by its time only
		}
		t.Run(name, func(t *testing.T) {
			server := newOnlyTLS13(t, refuse)
			template := server.Client().Transport.(*http.Transport).Clone()
			b, _ := admitted(t)
			transport := mtls.NewTransport(template, b)
			const callers = 20
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					body := strings.NewReader("payload")
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, body)
					assert.NoError(t, err)
					resp, err := transport.Do(req)
					if assert.NoError(t, err) {
						assert.NoError(t, resp.Body.Close())
					}
				})
			}
			wg.Wait()
			older, bodies := server.seen()
			require.Len(t, bodies, callers)
			transport.CloseIdleConnections()
			require.NoError(t, post(t, transport, server.URL))
			later, _ := server.seen()
			require.Equal(t, older, later, "it is settled")
		})
	}
}

// admitted returns a binding as a Cache gives it out, on a clock of the test's.
func admitted(t *testing.T) (*mtls.Binding, *clock.Fake) {
	now := clock.NewFake(time.Now())
	b, err := at(now).GetOrMint(t.Context(), (&minter{t: t}).source("a", nil))
	require.NoError(t, err)
	return b, now
}
