package callers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
)

// GuardTransport has the caller's own functions in a clone of a transport report their failures as theirs: as an
// *[Error], but for a dialer, whose failures may be the network's.
func GuardTransport(h *http.Transport) {
	if dial := h.DialContext; dial != nil {
		h.DialContext = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = Guard("the dialer", func() error { conn, err = dial(ctx, network, addr); return err })
			if err == nil && conn == nil {
				err = errors.New("the dialer returned neither a connection nor an error")
			}
			return conn, err
		}
	}
	if proxy := h.Proxy; proxy != nil {
		h.Proxy = func(req *http.Request) (u *url.URL, err error) {
			err = Guard("the proxy function", func() error { u, err = proxy(req); return err })
			return u, NewError(err)
		}
	}
	if headers := h.GetProxyConnectHeader; headers != nil {
		h.GetProxyConnectHeader = func(ctx context.Context, proxy *url.URL, target string) (header http.Header, err error) {
			err = Guard("GetProxyConnectHeader", func() error { header, err = headers(ctx, proxy, target); return err })
			return header, NewError(err)
		}
	}
	if look := h.OnProxyConnectResponse; look != nil {
		h.OnProxyConnectResponse = func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
			return NewError(Guard("OnProxyConnectResponse", func() error { return look(ctx, proxy, req, resp) }))
		}
	}
	if h.TLSClientConfig != nil {
		guardVerification(h.TLSClientConfig)
	}
}

func guardVerification(config *tls.Config) {
	if verify := config.VerifyPeerCertificate; verify != nil {
		config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			return NewError(Guard("VerifyPeerCertificate", func() error { return verify(raw, chains) }))
		}
	}
	if verify := config.VerifyConnection; verify != nil {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			return NewError(Guard("VerifyConnection", func() error { return verify(state) }))
		}
	}
}
