package mtls

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// connection is what is noted of one TLS connection while it lives.
type connection struct {
	net.Conn
	certificateSent atomic.Bool
	signerFailure   atomic.Pointer[SignerError]
}

// attempt is one try of one request: which connection it got, and how far it came. It is the context of the request, so that
// the dial and the handshake that net/http makes for it find it.
type attempt struct {
	context.Context
	dialed   atomic.Pointer[connection] // latest connection opened for this attempt
	got      atomic.Pointer[tls.Conn]   // connection that the request was written to
	reused   atomic.Bool
	answered atomic.Bool

	endIfNotAsked bool        // give up a TLS 1.3 connection on which the server did not ask for the certificate
	notAsked      atomic.Bool // it was given up

	trace httptrace.ClientTrace
}

type attemptKey struct{}

// Value returns the attempt itself to those who look for it.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// start returns the request with a context that reports to the attempt.
func (a *attempt) start(req *http.Request) *http.Request {
	a.Context = req.Context()
	a.trace.GotConn = a.gotConn
	a.trace.GotFirstResponseByte = a.gotFirstResponseByte
	return req.WithContext(httptrace.WithClientTrace(a, &a.trace))
}

// gotConn notes the connection. net/http may go through several in one RoundTrip: the last one counts.
func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	if conn, ok := info.Conn.(*tls.Conn); ok {
		a.got.Store(conn)
	}
	a.reused.Store(info.Reused)
	if a.endIfNotAsked && a.isUnasked() {
		a.notAsked.Store(true)
		_ = info.Conn.Close() // before anything is written
	}
}

func (a *attempt) gotFirstResponseByte() { a.answered.Store(true) }

// isUnasked reports that the connection is new, speaks TLS 1.3 and was opened without the server asking for the certificate.
func (a *attempt) isUnasked() bool {
	conn, c := a.got.Load(), a.connection()
	return conn != nil && c != nil && !a.reused.Load() && !c.certificateSent.Load() && conn.ConnectionState().Version == tls.VersionTLS13
}

// connection returns the connection that the attempt ended on, nil if it never came to one.
func (a *attempt) connection() *connection {
	if conn := a.got.Load(); conn != nil {
		return underlying(conn)
	}
	return a.dialed.Load()
}

// info returns the facts of the attempt for Classify.
func (a *attempt) info() AttemptInfo {
	info := AttemptInfo{Reused: a.reused.Load(), ResponseStarted: a.answered.Load()}
	if c := a.connection(); c != nil {
		info.CertificateSent = c.certificateSent.Load()
	}
	return info
}

// signerFailure returns the error of the private key, if that is what ended the attempt: crypto/tls keeps only its text.
func (a *attempt) signerFailure() error {
	if c := a.connection(); c != nil {
		if failure := c.signerFailure.Load(); failure != nil {
			return failure
		}
	}
	return nil
}

// lastWords returns what ended a fresh connection before the response began, where net/http reports something else. It reads all
// the time, and in TLS 1.3 a refusal comes when the request is being written: net/http reads it, closes the connection,
// and may then say that the write failed, or that the server closed an idle connection. The TLS connection
// remembers what was read.
func (a *attempt) lastWords(err error) error {
	conn := a.got.Load()
	if conn == nil || a.reused.Load() {
		return err
	}
	_ = conn.Close() // net/http did, or is about to
	_, read := conn.Read(make([]byte, 1))
	switch _, alert := peerAlert(read); {
	case alert:
		return read
	case errors.Is(read, io.EOF) && !isLoss(err):
		return fmt.Errorf("%w: %w", err, read)
	}
	return err
}

// underlying returns the connection below a TLS connection.
func underlying(c net.Conn) *connection {
	for {
		switch conn := c.(type) {
		case *connection:
			return conn
		case *tls.Conn:
			c = conn.NetConn()
		default:
			return nil
		}
	}
}

// noting wraps a dial function so that the attempt it is made for knows the connection.
func noting(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: raw}
		if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
			a.dialed.Store(c)
		}
		return c, nil
	}
}

// present answers a server's request for a certificate with the binding's. It does so whatever authorities the server lists:
// crypto/tls would silently send none where the list does not fit, and the server's refusal would then look like
// something else. The signer in it remembers its failure.
func (t *Transport) present(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	presented := t.binding.Certificate
	var c *connection
	if a, ok := request.Context().Value(attemptKey{}).(*attempt); ok {
		c = a.dialed.Load()
	}
	if c != nil {
		c.certificateSent.Store(true)
	} else { // a renegotiation: crypto/tls runs it without the context of the dial
		t.renegotiated.Add(1)
	}
	if signer, ok := presented.PrivateKey.(crypto.Signer); ok {
		presented.PrivateKey = &notingSigner{Signer: signer, connection: c}
	}
	return &presented, nil
}

// notingSigner tells its connection, if that is known, when the key failed to sign.
type notingSigner struct {
	crypto.Signer
	connection *connection
}

func (s *notingSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := s.Signer.Sign(rand, digest, opts)
	if err != nil {
		failure := &SignerError{Err: err}
		if s.connection != nil {
			s.connection.signerFailure.Store(failure)
		}
		return nil, failure
	}
	return signature, nil
}
