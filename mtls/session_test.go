package mtls_test

import (
	"crypto/tls"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// A session that is resumed has the certificate that it began with: no binding takes up one of another's, though the
// template keeps them, the server issues tickets, and a client that is less careful resumes.
func TestTransportResumesNoSession(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var mu sync.Mutex
		var states []tls.ConnectionState
		handshakes := 0
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, *r.TLS)
		}))
		server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: version}
		server.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				mu.Lock()
				defer mu.Unlock()
				handshakes++
			}
		}
		server.StartTLS()
		defer server.Close()
		template := server.Client().Transport.(*http.Transport).Clone()
		template.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		bindings := []*mtls.Binding{binding(t, nil), binding(t, nil), binding(t, nil)}

		for range 2 {
			careless := template.Clone()
			careless.TLSClientConfig.Certificates = []tls.Certificate{bindings[0].Certificate}
			resp, err := (&http.Client{Transport: careless}).Get(server.URL)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			careless.CloseIdleConnections()
		}
		mu.Lock()
		require.True(t, states[1].DidResume, "the server issues tickets")
		mu.Unlock()

		for _, b := range bindings {
			transport := mtls.NewTransport(template, b)
			for range 2 {
				require.NoError(t, post(t, transport, server.URL))
				transport.CloseIdleConnections()
			}
		}
		mu.Lock()
		require.Len(t, states, 2+6)
		require.Equal(t, 2+6, handshakes, "none was begun with a session and given up")
		for i, state := range states[2:] {
			require.False(t, state.DidResume)
			require.Equal(t, version, state.Version)
			require.Equal(t, bindings[i/2].Certificate.Leaf.Raw, state.PeerCertificates[0].Raw)
		}
		mu.Unlock()
	}
}
