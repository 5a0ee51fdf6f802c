package mtls

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/azmtls/azmtls/internal/callers"
)

// dialError is what a dialer failed with: no connection came about.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// guardProxies has a proxy refused that is reached over TLS, and one that does not let a connection through say so. It
// is about a clone of the template whose functions are guarded already.
func guardProxies(h *http.Transport) {
	if proxy := h.Proxy; proxy != nil {
		h.Proxy = func(req *http.Request) (*url.URL, error) {
			u, err := proxy(req)
			if err == nil && u != nil && u.Scheme == "https" {
				// net/http would use one TLS configuration for proxy and server.
				err = callers.NewError(fmt.Errorf(
					"mtls: the proxy %s is reached over TLS, which would present the binding's certificate to it; "+
						"use an http or socks5 proxy",
					u.Host,
				))
			}
			return u, err
		}
	}
	look := h.OnProxyConnectResponse
	h.OnProxyConnectResponse = func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
		if look != nil {
			if err := look(ctx, proxy, req, resp); err != nil {
				return err
			}
		}
		return refusedBy(proxy, resp)
	}
}

// refusedBy returns the error of a proxy that does not let a connection through; net/http has no more than the text of
// its status.
func refusedBy(proxy *url.URL, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	answer := fmt.Errorf("the proxy %s answered CONNECT with %d %s",
		proxy.Host, resp.StatusCode, http.StatusText(resp.StatusCode))
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: answer}
}

// readBody reads from a body of the caller's.
func readBody(r io.Reader, p []byte) (n int, err error) {
	err = callers.Guard("the body", func() error { n, err = r.Read(p); return err })
	if err != nil && err != io.EOF {
		err = callers.NewError(err)
	}
	return n, err
}
