package imdstest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
)

// listenTLS wraps a listener in TLS with the faults of the endpoint.
func (s *Server) listenTLS(endpoint Endpoint, auth tls.ClientAuthType) func(net.Listener) net.Listener {
	lowest, highest := s.options.versions()
	base := &tls.Config{
		Certificates:           []tls.Certificate{s.authority.server},
		ClientAuth:             unverified(auth),
		MinVersion:             lowest,
		MaxVersion:             highest,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true, // every connection shows its certificate; and see protectedAlert
		Time:                   s.options.Time,
	}
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		m := s.connected(endpoint, hello.Conn.(*wireConn))
		if err := m.strike(AtHello); err != nil {
			return nil, err
		}
		secrets := &keyLog{}
		own := base.Clone()
		own.KeyLogWriter = secrets
		own.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			leaf := state.PeerCertificates[0]
			m.thumbprint = thumbprint(leaf)
			m.alert = protectedAlert(m.wire, state, secrets)
			s.countPresented(endpoint, m.thumbprint)
			if alert := s.verify(leaf); alert != 0 {
				return Alert(alert).strike(m)
			}
			return m.strike(AtCertificate)
		}
		return own, nil
	}
	return func(l net.Listener) net.Listener {
		accepted := func(c *wireConn) error { return s.connected(endpoint, c).strike(AtConnect) }
		return tls.NewListener(wireListener{l, accepted}, config)
	}
}

// connected returns the moment of a connection whose handshake has not gone far.
func (s *Server) connected(endpoint Endpoint, c *wireConn) *moment {
	return &moment{server: s, endpoint: endpoint, wire: c, alert: clearAlert(c)}
}

// unverified leaves the verification of certificates to VerifyConnection, since crypto/tls has no hook for what fails
// its own.
func unverified(auth tls.ClientAuthType) tls.ClientAuthType {
	switch auth {
	case tls.VerifyClientCertIfGiven:
		return tls.RequestClientCert
	case tls.RequireAndVerifyClientCert:
		return tls.RequireAnyClientCert
	default:
		return auth
	}
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
