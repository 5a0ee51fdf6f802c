package callers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/stretchr/testify/require"
)

// Each function of a transport that the caller can set fails as the caller's: by an error, by a panic, and not at all
// if it works.
func TestGuardTransport(t *testing.T) {
	failed := errors.New("no")
	for name, test := range map[string]struct {
		outcome func() error
		says    string
	}{
		"works":  {func() error { return nil }, ""},
		"fails":  {func() error { return failed }, "no"},
		"panics": {func() error { panic("bug") }, "panicked: bug"},
	} {
		t.Run(name, func(t *testing.T) {
			var conn net.Conn = &net.TCPConn{}
			h := &http.Transport{
				DialContext:           func(context.Context, string, string) (net.Conn, error) { return conn, test.outcome() },
				Proxy:                 func(*http.Request) (*url.URL, error) { return nil, test.outcome() },
				GetProxyConnectHeader: func(context.Context, *url.URL, string) (http.Header, error) { return nil, test.outcome() },
				OnProxyConnectResponse: func(context.Context, *url.URL, *http.Request, *http.Response) error {
					return test.outcome()
				},
				TLSClientConfig: &tls.Config{
					VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return test.outcome() },
					VerifyConnection:      func(tls.ConnectionState) error { return test.outcome() },
				},
			}
			callers.GuardTransport(h)
			_, dial := h.DialContext(t.Context(), "tcp", "x:1")
			_, proxy := h.Proxy(nil)
			_, header := h.GetProxyConnectHeader(t.Context(), nil, "")
			for what, err := range map[string]error{
				"dialer": dial, "proxy": proxy, "header": header,
				"response":    h.OnProxyConnectResponse(t.Context(), nil, nil, nil),
				"certificate": h.TLSClientConfig.VerifyPeerCertificate(nil, nil),
				"connection":  h.TLSClientConfig.VerifyConnection(tls.ConnectionState{}),
			} {
				if test.says == "" {
					require.NoError(t, err, what)
					continue
				}
				require.ErrorContains(t, err, test.says, what)
				var own *callers.Error
				require.Equal(t, what != "dialer", errors.As(err, &own), "a dialer's failure may be the network's")
				if name == "fails" {
					require.ErrorIs(t, err, failed)
				}
			}
		})
	}
	h := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil }}
	callers.GuardTransport(h)
	_, err := h.DialContext(t.Context(), "tcp", "x:1")
	require.ErrorContains(t, err, "neither a connection nor an error")
	callers.GuardTransport(&http.Transport{})
}
