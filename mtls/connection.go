package mtls

import (
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/limits"
)

// connection is the connection below TLS, and what is known of it. crypto/tls runs a renegotiation without the context
// of the dial, and tells nobody how it ends; the records that pass here do.
type connection struct {
	net.Conn
	presented atomic.Bool // the first handshake presented our certificate
	used      atomic.Bool // a request was given it; net/http calls one reused that has only been idle
	signing   atomic.Pointer[signError]

	mu      sync.Mutex
	written records
	read    records

	ended     chan struct{} // nothing more will be read
	endedOnce sync.Once
}

func newConnection(raw net.Conn) *connection {
	return &connection{Conn: raw, ended: make(chan struct{})}
}

// maxRenegotiations is how often a server may renegotiate on one connection. Every time costs a signature.
const maxRenegotiations = 10

var errRenegotiations = fmt.Errorf(
	"mtls: the server renegotiated more than %d times on one connection",
	maxRenegotiations,
)

func (c *connection) Write(p []byte) (int, error) {
	c.mu.Lock()
	// A handshake record after a handshake that has ended is the ClientHello of a renegotiation.
	if c.written.idle() && c.written.changes > maxRenegotiations && c.written.body == 0 && len(p) > 0 &&
		p[0] == recordHandshake {
		c.mu.Unlock()
		return 0, errRenegotiations
	}
	c.mu.Unlock()
	n, err := c.Conn.Write(p)
	if err != nil {
		c.hearOut()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written.follow(p[:n])
	return n, err
}

// hearOut gives whoever reads the connection the time to read what came before it ended: net/http closes a connection
// as soon as a write fails, and would miss the answer of a server that does not want the rest of an upload. In the
// first handshake nobody else reads.
func (c *connection) hearOut() {
	if !c.used.Load() {
		return
	}
	timer := time.NewTimer(limits.LastWords)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
	}
}

func (c *connection) noteEnd() { c.endedOnce.Do(func() { close(c.ended) }) }

// Close closes the connection.
func (c *connection) Close() error {
	c.noteEnd()
	return c.Conn.Close()
}

func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.noteEnd()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.written.begun {
		c.read.follow(p[:n])
	}
	return n, err
}

// sent reports whether our certificate went out.
func (c *connection) sent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.presented.Load() || c.written.sent
}

// renegotiating reports that a renegotiation has begun and not ended on both sides.
func (c *connection) renegotiating() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, r := c.written, c.read
	return w.changes > 0 && w.handshakes > 0 && (w.handshakes > 1 || r.changes < w.changes)
}

// noting wraps a dial function so that the attempt it is made for knows the connection.
func noting(
	dial func(ctx context.Context, network, addr string) (net.Conn, error),
) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, &dialError{err}
		}
		c := newConnection(raw)
		if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
			a.dialed.Store(c)
		}
		return c, nil
	}
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

// present answers a server's request for a certificate with the binding's. It does so whatever authorities the server
// lists: crypto/tls would silently send none where the list does not fit, and the server's refusal would then look like
// something else. The signer in it remembers its failure.
func (t *Transport) present(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	presented := t.binding.Certificate
	var c *connection
	if a, ok := request.Context().Value(attemptKey{}).(*attempt); ok {
		c = a.dialed.Load()
	}
	if c != nil { // nil in a renegotiation: the records tell
		c.presented.Store(true)
	}
	if signer, ok := presented.PrivateKey.(crypto.Signer); ok {
		presented.PrivateKey = &notingSigner{Signer: signer, connection: c}
	}
	return &presented, nil
}

// signError says that the private key of a binding failed to sign. crypto/tls keeps only the text of a signer's error
// in TLS 1.3; this type keeps the error.
type signError struct{ err error }

func (e *signError) Error() string { return fmt.Sprintf("the private key failed to sign: %v", e.err) }
func (e *signError) Unwrap() error { return e.err }

// notingSigner tells its connection, if that is known, when the key failed to sign.
type notingSigner struct {
	crypto.Signer
	connection *connection
}

func (s *notingSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = callers.Guard("the key", func() error { signature, err = s.Signer.Sign(rand, digest, opts); return err })
	if err != nil {
		failed := &signError{err}
		if s.connection != nil {
			s.connection.signing.Store(failed)
		}
		return nil, failed
	}
	return signature, nil
}
