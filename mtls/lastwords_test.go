package mtls_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// In TLS 1.3 the server's refusal can overtake the request, and net/http then reports that writing to a closed connection failed.
// It is a refusal all the same: the certificate is not presented again to make sure.
func TestRefusalThatOvertookTheRequest(t *testing.T) {
	for name, refused := range map[string]bool{"refused": true, "lost": false} {
		t.Run(name, func(t *testing.T) {
			server, b := issued(t, imdstest.Options{TLSVersion: tls.VersionTLS13})
			if refused {
				server.Refuse(b.Thumbprint(), 48)
			}
			config := server.MTLSTransport().TLSClientConfig
			config.Certificates = []tls.Certificate{b.Certificate}
			address, err := url.Parse(server.TokenURL())
			require.NoError(t, err)
			conn, err := tls.Dial("tcp", address.Host, config)
			require.NoError(t, err, "in TLS 1.3 the client is done before the server has looked at the certificate")
			defer conn.Close()
			if refused {
				_, err = conn.Read(make([]byte, 1)) // net/http reads all the time
				require.Error(t, err)
			}
			err = mtls.LastWords(conn, net.ErrClosed)
			want := mtls.ConnectionLost
			if refused {
				want = mtls.BindingRejected
			}
			require.Equal(t, want, mtls.Classify(err, mtls.AttemptInfo{CertificateSent: true, Losses: 1}), "%v", err)
			require.NotErrorIs(t, err, io.EOF)
		})
	}
}
