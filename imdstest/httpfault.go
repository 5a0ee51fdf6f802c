package imdstest

import (
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
)

// spoil answers a request by its fault, if that is one that replaces the answer.
func (s *Server) spoil(w http.ResponseWriter, r *http.Request, fault *Fault) bool {
	switch fault.Kind {
	case KindResetAfterHandshake:
		drop(r, true)
	case KindEOFAfterHandshake:
		drop(r, false)
	case KindResetMidBody:
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"access_token":`))
		_ = http.NewResponseController(w).Flush()
		drop(r, true)
	case KindHang:
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
		drop(r, true)
	case KindRespond:
		for name, values := range fault.Header {
			w.Header()[name] = values
		}
		if fault.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(int(math.Ceil(fault.RetryAfter.Seconds()))))
		}
		w.WriteHeader(fault.Status)
		_, _ = w.Write([]byte(fault.Body))
	case KindMalformed:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token": "unfinished`))
	case KindOversized:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"padding":"` + strings.Repeat("x", 2<<20) + `"}`))
	case KindRedirect:
		if strings.HasSuffix(r.URL.Path, "/redirected") {
			s.reject(fault.Endpoint, "a redirect was followed")
		}
		w.Header().Set("Location", r.URL.Path+"/redirected")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case KindWrongServer:
		w.Header().Set("Server", "nginx/1.27")
		return false
	default:
		return false
	}
	return true
}

// drop ends the connection of a request. Panicking with ErrAbortHandler is net/http's own way out of a handler whose
// connection is gone.
func drop(r *http.Request, reset bool) {
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		closeConn(conn, reset)
	}
	panic(http.ErrAbortHandler)
}

// closeConn closes the TCP connection below c, with an RST or a FIN.
func closeConn(c net.Conn, reset bool) {
	switch conn := c.(type) {
	case *tls.Conn:
		closeConn(conn.NetConn(), reset)
	case *wireConn:
		closeConn(conn.TCPConn, reset)
	case *net.TCPConn:
		if reset {
			_ = conn.SetLinger(0)
		}
		_ = conn.Close()
	}
}
