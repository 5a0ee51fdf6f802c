package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/azmtls/azmtls/internal/callers"
)

// attempt is one try of one request: which connection it got, and how far it came. It is the context of the request, so
// that the dial and the handshake that net/http makes for it find it.
type attempt struct {
	context.Context
	dialed atomic.Pointer[connection] // latest connection opened for this attempt
	got    atomic.Pointer[tls.Conn]   // connection that the request was written to
	reused atomic.Bool

	answered atomic.Bool

	late          bool        // it goes over the lane for hosts that ask late
	endIfNotAsked bool        // give up a TLS 1.3 connection on which the server did not ask for the certificate
	unasked       atomic.Bool // it was given up
	upload        *upload

	facts facts
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
	a.trace.GetConn = a.getConn
	a.trace.GotConn = a.gotConn
	a.trace.GotFirstResponseByte = a.gotFirstResponseByte
	return req.WithContext(httptrace.WithClientTrace(a, &a.trace))
}

// body returns the body that is being sent, nil if there is none.
func (a *attempt) body() *attemptBody { return a.upload.current }

// getConn is called when a connection is looked for. net/http may go through several in one RoundTrip: the last one
// counts. It does so too where one was given up that had been idle before, and then sends the request on another.
func (a *attempt) getConn(string) {
	a.dialed.Store(nil)
	a.got.Store(nil)
	a.reused.Store(false)
	a.unasked.Store(false)
	if body := a.body(); body != nil {
		body.ended.Store(false)
	}
}

// gotConn notes the connection.
func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	if conn, ok := info.Conn.(*tls.Conn); ok {
		a.got.Store(conn)
	}
	if c := underlying(info.Conn); c != nil {
		a.reused.Store(c.used.Swap(true))
	}
	if a.endIfNotAsked && a.isUnasked() {
		a.unasked.Store(true)
		if body := a.body(); body != nil {
			body.ended.Store(true)
		}
		_ = info.Conn.Close() // before anything is written
	}
}

func (a *attempt) gotFirstResponseByte() { a.answered.Store(true) }

// isUnasked reports that the connection is new, speaks TLS 1.3 and was opened without the server asking for the
// certificate.
func (a *attempt) isUnasked() bool {
	conn, c := a.got.Load(), a.connection()
	return conn != nil && c != nil && !a.reused.Load() && !c.sent() &&
		conn.ConnectionState().Version == tls.VersionTLS13
}

// connection returns the connection that the attempt ended on, nil if it never came to one.
func (a *attempt) connection() *connection {
	if conn := a.got.Load(); conn != nil {
		return underlying(conn)
	}
	return a.dialed.Load()
}

// finish returns what is known of the attempt, which ended with an answer or with err.
func (a *attempt) finish(err error) *facts {
	f := &a.facts
	f.err, f.reused, f.began = err, a.reused.Load(), a.answered.Load()
	f.written = a.got.Load() != nil && !a.unasked.Load() // or will be, as soon as there is a connection
	c := a.connection()
	if c != nil {
		f.sent = c.sent()
	}
	if err == nil {
		return f
	}
	f.callers = a.callers(err)
	if f.callers != nil || a.unasked.Load() {
		return f
	}
	if !f.began {
		f.err = a.lastWords(err)
	}
	if c != nil {
		f.handshake = a.got.Load() == nil || c.renegotiating()
		f.signing = a.signing(c, f.err)
	}
	f.firstRead = !f.handshake && !f.reused && a.isTLS13()
	return f
}

// callers returns what the caller's own code, or its context, ended the attempt with; nil if that is not what ended it.
func (a *attempt) callers(err error) error {
	if ended := a.Context.Err(); ended != nil {
		return ended
	}
	if body := a.body(); body != nil {
		if failed := body.failed.Load(); failed != nil {
			return failed
		}
	}
	if failed, ok := errors.AsType[*callers.Error](err); ok {
		return failed
	}
	return nil
}

// signing returns the error of the private key, if that is what ended the attempt: crypto/tls keeps only its text in
// TLS 1.3. In a renegotiation, which is one of TLS 1.2, the connection is not known to the signer.
func (a *attempt) signing(c *connection, err error) error {
	if failed := c.signing.Load(); failed != nil {
		return failed
	}
	if failed, ok := errors.AsType[*signError](err); ok {
		return failed
	}
	return nil
}

func (a *attempt) isTLS13() bool {
	conn := a.got.Load()
	return conn != nil && conn.ConnectionState().Version == tls.VersionTLS13
}

// lastWords returns what ended a connection before the answer began, where net/http reports something else. It reads
// all the time, and in TLS 1.3 a refusal comes when the request is being written: net/http reads it, closes the
// connection, and may then say that the write failed, or that the server closed an idle connection. The TLS connection
// remembers what was read, and how a renegotiation failed.
func (a *attempt) lastWords(err error) error {
	conn := a.got.Load()
	if conn == nil {
		return err
	}
	_ = conn.Close() // net/http did, or is about to
	_, read := conn.Read(make([]byte, 1))
	switch _, alert := peerAlert(read); {
	case alert, errors.Is(read, errRenegotiations):
		return read
	case errors.Is(read, io.EOF) && !isLoss(err) && !a.reused.Load():
		return fmt.Errorf("%w: %w", err, read)
	}
	return err
}
