package azmtls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	stdlog "log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// openConnections is a server that knows how many connections it has.
type openConnections struct {
	*httptest.Server
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func newOpenConnections(t *testing.T) *openConnections {
	s := &openConnections{open: map[net.Conn]struct{}{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if state == http.StateNew {
			s.open[conn] = struct{}{}
		} else if state == http.StateClosed {
			delete(s.open, conn)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *openConnections) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// freshBindings returns bindings of a cache in which every mint gives a certificate of its own, good for 7 days.
func freshBindings(t *testing.T, now *clock.Fake, template *http.Transport) *bindings {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	const client = "11111111-2222-3333-4444-555555555555"
	return &bindings{
		cache: &mtls.Cache{Clock: now.Clock()}, template: template, tracing: tracer{}, closed: &atomic.Bool{},
		source: mtls.Source{Alias: "a", Mint: func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
			template := &x509.Certificate{
				SerialNumber: big.NewInt(now.Wall().UnixNano()), Subject: pkix.Name{CommonName: client},
				NotBefore: now.Wall(), NotAfter: now.Wall().Add(7 * 24 * time.Hour),
			}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				return nil, err
			}
			leaf, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, err
			}
			return mtls.NewBinding(leaf, softKey{key}, "https://entra.example/tenant", client)
		}},
	}
}

type softKey struct{ *ecdsa.PrivateKey }

func (softKey) Strength() mtls.BindingStrength { return mtls.StrengthSoftware }

// The connections of bindings that serve no more are forgotten and closed, however a binding ended: by its time, by a
// refusal at this credential, or by one at another credential that shares it.
func TestConnectionsOfBindingsThatAreGone(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(t *testing.T, b *bindings, now *clock.Fake, gone *mtls.Binding)
		kept int
	}{
		"expired": {func(_ *testing.T, _ *bindings, now *clock.Fake, _ *mtls.Binding) {
			now.Advance(8 * 24 * time.Hour)
		}, maxConnections},
		"refused": {func(t *testing.T, b *bindings, now *clock.Fake, gone *mtls.Binding) {
			require.True(t, b.rejected(t.Context(), &mtls.Refusal{Binding: gone, Host: "entra.example", Err: io.EOF}))
			require.NotContains(t, b.connections, gone, "forgotten at once")
			now.Advance(time.Hour)
		}, 1},
		"refused at another credential": {func(t *testing.T, b *bindings, now *clock.Fake, gone *mtls.Binding) {
			refusal := &mtls.Refusal{Binding: gone, Host: "entra.example", Err: io.EOF}
			require.True(t, b.cache.RemoveBadCert(t.Context(), b.source, refusal))
			now.Advance(time.Hour)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newOpenConnections(t)
			now := clock.NewFake(time.Now())
			b := freshBindings(t, now, server.Client().Transport.(*http.Transport))
			for range 50 {
				transport, err := b.resolve(t.Context())
				require.NoError(t, err)
				require.LessOrEqual(t, len(b.connections), test.kept)
				require.Contains(t, b.connections, transport.Binding())
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
				require.NoError(t, err)
				resp, err := transport.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				test.end(t, b, now, transport.Binding())
			}
			b.closeIdle()
			require.Eventually(t, func() bool { return server.count() == 0 }, 10*time.Second, time.Millisecond,
				"the connections of those that are forgotten were closed before")
		})
	}
}
