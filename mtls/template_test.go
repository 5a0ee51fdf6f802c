package mtls

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever the template says of TLS, or nothing: each transport presents the binding's certificate, in HTTP/1.1, in TLS
// 1.2 at least, and takes up no session of another. The template stays as it is.
func TestTemplateOfTLS(t *testing.T) {
	sessions := tls.NewLRUClientSessionCache(1)
	for name, config := range map[string]*tls.Config{
		"nothing": nil,
		"much": {
			MinVersion: tls.VersionTLS10, NextProtos: []string{"h2"}, ClientSessionCache: sessions,
			Certificates: []tls.Certificate{{}}, ServerName: "resource.example",
		},
		"TLS 1.3 alone": {MinVersion: tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			template := &http.Transport{TLSClientConfig: config}
			template.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} // or net/http fills in TLS itself
			transport := NewTransport(template, plain(t))
			for _, l := range []lane{transport.ordinary, transport.late} {
				for _, h := range []*http.Transport{l.pooled, l.fresh} {
					require.NotSame(t, config, h.TLSClientConfig)
					c := h.TLSClientConfig
					require.NotNil(t, c.GetClientCertificate)
					require.Equal(t, []string{"http/1.1"}, c.NextProtos)
					require.Nil(t, c.ClientSessionCache)
					require.GreaterOrEqual(t, c.MinVersion, uint16(tls.VersionTLS12))
					if config != nil {
						require.Equal(t, max(config.MinVersion, tls.VersionTLS12), c.MinVersion)
						require.Equal(t, config.ServerName, c.ServerName)
					}
				}
			}
			if name == "much" {
				require.Equal(t, sessions, config.ClientSessionCache)
				require.Equal(t, []string{"h2"}, config.NextProtos)
				require.EqualValues(t, tls.VersionTLS10, config.MinVersion)
			}
			require.Same(t, config, template.TLSClientConfig)
		})
	}
}
