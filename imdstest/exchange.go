package imdstest

import (
	"bytes"
	"crypto/tls"
	"maps"
	"net/http"
	"strings"
)

// exchange serves one request under the faults of its endpoint. The answer of the handler goes straight to the
// client, since it may be a stream, unless a fault awaits it: then it is collected first.
func (s *Server) exchange(endpoint Endpoint, w http.ResponseWriter, r *http.Request, handle http.HandlerFunc) {
	if strings.HasSuffix(r.URL.Path, "/"+redirected) {
		s.reject(endpoint, "a redirect was followed")
	}
	m := s.requested(endpoint, w, r)
	m.mustStrike(AtRequest)
	if m.answer == nil {
		if !m.awaits(AtAnswer) && !m.awaits(AtBody) {
			handle(w, r)
			return
		}
		m.renew()
		handle(m.answer, r)
		m.mustStrike(AtAnswer)
	}
	m.send()
}

// requested returns the moment of a request.
func (s *Server) requested(endpoint Endpoint, w http.ResponseWriter, r *http.Request) *moment {
	m := &moment{server: s, endpoint: endpoint, writer: w, request: r}
	switch conn := r.Context().Value(connKey{}).(type) {
	case *wireConn:
		m.wire = conn
	case *tls.Conn:
		m.wire = conn.NetConn().(*wireConn)
		m.alert = func(uint8, uint8) error { return conn.CloseWrite() } // close_notify, the one that crypto/tls sends
		if certificates := r.TLS.PeerCertificates; len(certificates) > 0 {
			m.thumbprint = thumbprint(certificates[0])
		}
	}
	return m
}

// mustStrike is strike in a handler: panicking with ErrAbortHandler is net/http's way out of one whose connection is
// gone.
func (m *moment) mustStrike(at Stage) {
	if m.strike(at) != nil {
		panic(http.ErrAbortHandler)
	}
}

// send sends the answer.
func (m *moment) send() {
	half := m.begin()
	if m.awaits(AtBody) {
		_ = http.NewResponseController(m.writer).Flush()
		m.mustStrike(AtBody)
	}
	_, _ = m.writer.Write(m.answer.body.Bytes()[half:])
}

// begin writes the header of the answer and the first half of its body, and returns the length of that.
func (m *moment) begin() (half int) {
	half = m.answer.body.Len() / 2
	maps.Copy(m.writer.Header(), m.answer.header)
	m.writer.WriteHeader(m.answer.status)
	if half > 0 {
		_, _ = m.writer.Write(m.answer.body.Bytes()[:half])
	}
	return half
}

// answer collects what a handler says. It is an http.ResponseWriter.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// renew begins an answer, in place of one that there may be, with the headers that all answers of the endpoint have.
func (m *moment) renew() {
	m.answer = &answer{header: m.writer.Header().Clone(), status: http.StatusOK}
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// Flush does nothing: it lets handlers run that stream.
func (a *answer) Flush() {}
