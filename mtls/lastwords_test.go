package mtls_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// In TLS 1.3 the client is done before the server has looked at the certificate. A refusal, or the end, can overtake
// the request, and net/http then reports something else: that writing to a closed connection failed, that an idle
// connection was closed. What counts is what came over the wire.
func TestEndThatOvertookTheRequest(t *testing.T) {
	closedIdle := errors.New("http: server closed idle connection") // net/http does not export it
	alert := imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48)}
	end := imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.EOF{}}
	for name, test := range map[string]struct {
		fault    *imdstest.Fault
		reported error
		want     string
	}{
		"alert, write failed":        {&alert, net.ErrClosed, "refused"},
		"alert, idle connection":     {&alert, closedIdle, "refused"},
		"end, write failed":          {&end, net.ErrClosed, "lost"},
		"end, idle connection":       {&end, closedIdle, "lost"},
		"nothing, write failed":      {nil, net.ErrClosed, "lost"},
		"nothing, trouble of a body": {nil, errors.New("the body cannot be read"), "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			server, b := issued(t, imdstest.Options{TLSVersion: tls.VersionTLS13})
			if test.fault != nil {
				server.Inject(*test.fault)
			}
			config := server.MTLSTransport().TLSClientConfig
			config.Certificates = []tls.Certificate{b.Certificate}
			address, err := url.Parse(server.TokenURL())
			require.NoError(t, err)
			conn, err := tls.Dial("tcp", address.Host, config)
			require.NoError(t, err)
			defer conn.Close()
			if test.fault != nil {
				_, err = conn.Read(make([]byte, 1)) // as net/http does all the time
				require.Error(t, err)
			}
			err = mtls.LastWords(conn, test.reported)
			require.Equal(t, test.want, mtls.JudgeFirstRead(err), "%v", err)
		})
	}
}
