package imdstest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// listenTLS wraps a listener in TLS that asks for client certificates and has the faults of the endpoint.
func (s *Server) listenTLS(endpoint Endpoint, auth tls.ClientAuthType) func(net.Listener) net.Listener {
	lowest, highest := s.options.versions()
	base := &tls.Config{
		Certificates:           []tls.Certificate{s.authority.server},
		ClientAuth:             auth, // VerifyConnection does the verification, since crypto/tls has no hook for what fails it
		MinVersion:             lowest,
		MaxVersion:             highest,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true, // every connection shows its certificate; and see sendAlert
		Time:                   s.options.Time,
	}
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if fault := s.faults.strike(s, endpoint, "", onHello); fault != nil {
			return nil, s.breakHandshake(hello.Conn, fault)
		}
		secrets := &keyLog{}
		own := base.Clone()
		own.KeyLogWriter = secrets
		own.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			presented := thumbprint(state.PeerCertificates[0])
			s.countPresented(endpoint, presented)
			if alert := s.verify(state.PeerCertificates[0]); alert != 0 {
				return s.sendAlert(hello.Conn, state, secrets, alert)
			}
			fault := s.faults.strike(s, endpoint, presented, onCertificate)
			if fault == nil {
				return nil
			}
			if fault.Kind == KindAlert {
				return s.sendAlert(hello.Conn, state, secrets, fault.Alert)
			}
			return s.breakHandshake(hello.Conn, fault)
		}
		return own, nil
	}
	return func(l net.Listener) net.Listener { return tls.NewListener(wireListener{l}, config) }
}

// wireConn is a TCP connection that a fault can take away from the TLS and HTTP servers above it.
type wireConn struct {
	*net.TCPConn
	taken atomic.Bool
}

type wireListener struct{ net.Listener }

func (l wireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wireConn{TCPConn: conn.(*net.TCPConn)}, nil
}

// Write discards what the servers above still want to say.
func (c *wireConn) Write(p []byte) (int, error) {
	if c.taken.Load() {
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

// Close leaves a taken connection to whoever took it.
func (c *wireConn) Close() error {
	if c.taken.Load() {
		return nil
	}
	return c.TCPConn.Close()
}

// verify returns the alert by which crypto/tls would refuse a client certificate, 0 if it is good.
func (s *Server) verify(leaf *x509.Certificate) uint8 {
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       s.authority.pool(),
		CurrentTime: s.options.Time(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil {
		return 0
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return alertCertificateExpired
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return alertUnknownCA
	}
	return alertBadCertificate
}

var errBroken = errors.New("imdstest: the connection was broken by a fault")

// breakHandshake ends a connection in its handshake.
func (s *Server) breakHandshake(conn net.Conn, fault *Fault) error {
	switch fault.Kind {
	case KindHangInHandshake:
		<-s.done
		closeConn(conn, true)
	case KindEOFBeforeCertificate, KindEOFInHandshake:
		closeConn(conn, false)
	default:
		closeConn(conn, true)
	}
	return errBroken
}

// onConnection returns the handler of an endpoint on TLS, which runs under the faults of its requests.
func (s *Server) onConnection(endpoint Endpoint, handle func(http.ResponseWriter, *http.Request, *x509.Certificate, *Fault)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.count(func(c *Counts) {
			if endpoint == Token {
				c.Token++
			} else {
				c.Resource++
			}
		})
		var client *x509.Certificate
		presented := ""
		if certificates := r.TLS.PeerCertificates; len(certificates) > 0 {
			client, presented = certificates[0], thumbprint(certificates[0])
		}
		fault := s.faults.strike(s, endpoint, presented, onRequest)
		if fault != nil && s.spoil(w, r, fault) {
			return
		}
		handle(w, r, client, fault)
	})
}
