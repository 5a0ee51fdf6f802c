package imdstest

import (
	"errors"
	"fmt"
	"net/http"
)

// Stage is when a fault strikes, in the life of a connection or of a request.
type Stage int

const (
	// AtRequest is when the header of a request was read, and nothing was done with it: it is not processed.
	AtRequest Stage = iota
	// AtConnect is when the TCP connection was accepted, and nothing was read from it. A client can see a Reset as a
	// failure to connect. IMDS, which speaks plain HTTP, has neither this stage nor AtHello and AtCertificate.
	AtConnect
	// AtHello is when the ClientHello was read.
	AtHello
	// AtCertificate is when the client certificate was seen. In TLS 1.3 the client has finished its handshake by
	// then. It is skipped on connections without a certificate.
	AtCertificate
	// AtAnswer is when the request was served, before the first byte of the answer: the counts went up, a token was
	// issued, the resource processed the request.
	AtAnswer
	// AtBody is when the header of the answer and the first half of its body were sent.
	AtBody
)

func (s Stage) String() string {
	names := [...]string{"AtRequest", "AtConnect", "AtHello", "AtCertificate", "AtAnswer", "AtBody"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("Stage(%d)", int(s))
	}
	return names[s]
}

// ofConnection reports whether the stage comes before the first request of a connection.
func (s Stage) ofConnection() bool { return s == AtConnect || s == AtHello || s == AtCertificate }

// moment is a connection, and maybe a request on it, at a stage: all that an action can touch.
type moment struct {
	server     *Server
	endpoint   Endpoint
	thumbprint string // of the client certificate, once it was seen
	wire       *wireConn
	// alert writes a TLS alert, protected as the connection is now. Nil on plain HTTP.
	alert func(level, number uint8) error

	// Of requests only. The answer is nil before there is one.
	writer  http.ResponseWriter
	request *http.Request
	answer  *answer
}

// errBroken ends what the servers of crypto/tls and net/http do with a connection that an action has ended.
var errBroken = errors.New("imdstest: the connection was broken by a fault")

// strike has the fault of this stage strike, if there is one. An error means that the connection is no longer the
// server's.
func (m *moment) strike(at Stage) error {
	action := m.server.faults.next(m.endpoint, at, m.thumbprint)
	if action == nil {
		return nil
	}
	m.server.count(func(c *Counts) { c.Faults++ })
	return action.strike(m)
}

// awaits reports whether a fault may strike at this stage.
func (m *moment) awaits(at Stage) bool { return m.server.faults.awaited(m.endpoint, at, m.thumbprint) }

// gone returns a channel that is closed when the peer ends the connection.
func (m *moment) gone() <-chan struct{} {
	if m.request == nil {
		return m.wire.drain()
	}
	go func() { _, _ = discard(m.request.Body) }() // net/http watches the peer only once the body was read
	return m.request.Context().Done()
}
