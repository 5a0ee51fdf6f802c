package mtls

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

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
					require.True(t, h.Protocols.HTTP1())
					require.False(t, h.Protocols.HTTP2())
					require.Nil(t, h.TLSNextProto)
					require.NotNil(t, h.DialContext)
					require.Equal(t, 10*time.Second, h.TLSHandshakeTimeout)
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

// A key that signs no RSASSA-PSS has no TLS 1.3.
func TestKeyDecidesTheVersion(t *testing.T) {
	for name, test := range map[string]struct {
		schemes []tls.SignatureScheme
		highest uint16
	}{
		"any scheme":    {nil, 0},
		"PSS, SHA-256":  {[]tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PSSWithSHA256}, 0},
		"PSS, SHA-384":  {[]tls.SignatureScheme{tls.PSSWithSHA384}, 0},
		"PSS, SHA-512":  {[]tls.SignatureScheme{tls.PSSWithSHA512}, 0},
		"PKCS #1 alone": {[]tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA512}, tls.VersionTLS12},
	} {
		b := plain(t)
		b.Certificate.SupportedSignatureAlgorithms = test.schemes
		transport := NewTransport(&http.Transport{}, b)
		require.Equal(t, test.highest, transport.ordinary.pooled.TLSClientConfig.MaxVersion, name)
	}
}
