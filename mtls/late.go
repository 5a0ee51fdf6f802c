package mtls

import (
	"crypto/tls"
	"errors"
	"sync"
)

// Some servers ask for the certificate only when they see what the request is for: Key Vault, IIS, Apache with a certificate
// demanded for one location. In TLS 1.2 they renegotiate, which crypto/tls can do as a client. In TLS 1.3 they use
// post-handshake authentication (RFC 8446, section 4.6.2), which crypto/tls does not have. So a host that ends a TLS 1.3
// handshake without asking gets TLS 1.2 from then on; the connection is given up before anything is sent on it.

// errNotAsked says that an attempt was given up because the server had not asked for the certificate.
var errNotAsked = errors.New("mtls: the server ended the TLS 1.3 handshake without asking for the certificate")

const alertProtocolVersion tls.AlertError = 70

// hosts remembers which hosts belong in the late lane and which do not. The zero value is ready.
type hosts struct {
	mu   sync.RWMutex
	late map[string]bool
}

func (h *hosts) isLate(host string) (late, known bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	late, known = h.late[host]
	return late, known
}

func (h *hosts) remember(host string, late bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late == nil {
		h.late = map[string]bool{}
	}
	h.late[host] = late
}

// laneOf returns the connections for a host.
func (t *Transport) laneOf(host string) *lane {
	if late, _ := t.hosts.isLate(host); late {
		return &t.late
	}
	return &t.ordinary
}

// mayAskLate reports that it is not known yet when the host asks for the certificate, and that the template leaves it TLS 1.2 to
// ask late.
func (t *Transport) mayAskLate(host string) bool {
	_, known := t.hosts.isLate(host)
	return !known && t.ordinary.pooled.TLSClientConfig.MinVersion <= tls.VersionTLS12
}

// changeLane returns the other lane when the attempt showed that the host belongs there, nil if it does not.
func (t *Transport) changeLane(from *lane, host string, info AttemptInfo, err error) *lane {
	switch alert, _ := peerAlert(err); {
	case err == nil:
		return nil
	case errors.Is(err, errNotAsked):
		t.hosts.remember(host, true)
		Logf(EventBinding, "%s did not ask for the certificate in a TLS 1.3 handshake; it gets TLS 1.2, in which it can ask later", host)
		return &t.late
	case from == &t.late && alert == alertProtocolVersion && !info.CertificateSent:
		t.hosts.remember(host, false)
		Logf(EventBinding, "%s speaks no TLS 1.2; it gets TLS 1.3 without being asked for the certificate", host)
		return &t.ordinary
	}
	return nil
}
