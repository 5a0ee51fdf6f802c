package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// What the caller's own code fails with is never evidence, whichever error value it chose, and its panics are errors: net/http
// runs it in goroutines of its own, where a panic would end the process.

// callersError is what the caller's own code failed with.
type callersError struct{ error }

func (e *callersError) Unwrap() error { return e.error }

// NonRetriable marks the error for azcore's retry policy: the caller's code would be asked once more for what it cannot do.
func (*callersError) NonRetriable() {}

// dialError is what a dialer failed with: no connection came about.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// guard runs a function of the caller's. A panic of it is an error.
func guard(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("mtls: %s panicked: %v", what, r)
		}
	}()
	return f()
}

// guardCallers has the caller's own functions in a clone of the template report their failures as theirs.
func guardCallers(h *http.Transport) {
	if dial := h.DialContext; dial != nil {
		h.DialContext = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = guard("the dialer", func() error { conn, err = dial(ctx, network, addr); return err })
			if err == nil && conn == nil {
				err = errors.New("mtls: the dialer returned neither a connection nor an error")
			}
			return conn, err
		}
	}
	if proxy := h.Proxy; proxy != nil {
		h.Proxy = func(req *http.Request) (u *url.URL, err error) {
			err = guard("the proxy function", func() error { u, err = proxy(req); return err })
			if err == nil && u != nil && u.Scheme == "https" {
				// net/http would use one TLS configuration for proxy and server.
				err = fmt.Errorf(
					"mtls: the proxy %s is reached over TLS, which would present the binding's certificate to it; "+
						"use an http or socks5 proxy",
					u.Host,
				)
			}
			return u, asCallers(err)
		}
	}
	if headers := h.GetProxyConnectHeader; headers != nil {
		h.GetProxyConnectHeader = func(ctx context.Context, proxy *url.URL, target string) (header http.Header, err error) {
			err = guard("GetProxyConnectHeader", func() error { header, err = headers(ctx, proxy, target); return err })
			return header, asCallers(err)
		}
	}
	look := h.OnProxyConnectResponse
	h.OnProxyConnectResponse = func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
		if look != nil {
			if err := guard("OnProxyConnectResponse", func() error { return look(ctx, proxy, req, resp) }); err != nil {
				return asCallers(err)
			}
		}
		return refusedBy(proxy, resp)
	}
	if verify := h.TLSClientConfig.VerifyPeerCertificate; verify != nil {
		h.TLSClientConfig.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			return asCallers(guard("VerifyPeerCertificate", func() error { return verify(raw, chains) }))
		}
	}
	if verify := h.TLSClientConfig.VerifyConnection; verify != nil {
		h.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
			return asCallers(guard("VerifyConnection", func() error { return verify(state) }))
		}
	}
}

// refusedBy returns the error of a proxy that does not let a connection through; net/http has no more than the text of its status.
func refusedBy(proxy *url.URL, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	answer := fmt.Errorf("the proxy %s answered CONNECT with %d %s",
		proxy.Host, resp.StatusCode, http.StatusText(resp.StatusCode))
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: answer}
}

func asCallers(err error) error {
	if err == nil {
		return nil
	}
	return &callersError{err}
}

// readBody reads from a body of the caller's.
func readBody(r io.Reader, p []byte) (n int, err error) {
	err = guard("the body", func() error { n, err = r.Read(p); return err })
	if err != nil && err != io.EOF {
		err = &callersError{err}
	}
	return n, err
}
