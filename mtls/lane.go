package mtls

import (
	"crypto/tls"
	"net/http"

	"github.com/azmtls/azmtls/internal/eventlog"
)

// Some servers ask for the certificate only when they see what the request is for: Key Vault, IIS, Apache with a
// certificate demanded for one location. In TLS 1.2 they renegotiate, which crypto/tls can do as a client. In TLS 1.3
// they use post-handshake authentication (RFC 8446, section 4.6.2), which crypto/tls does not have. So a host that ends
// a TLS 1.3 handshake without asking gets TLS 1.2 from then on; the connection is given up before anything is sent on
// it. If its first connection with TLS 1.2 fails before it asked for anything, it goes back to TLS 1.3.

// lane is the connections to hosts that are spoken to alike.
type lane struct {
	pooled *http.Transport
	fresh  *http.Transport // every request on a connection of its own
}

func (l *lane) has(transport *http.Transport) bool {
	return transport == l.pooled || transport == l.fresh
}

func (l *lane) closeIdle() {
	l.pooled.CloseIdleConnections()
	l.fresh.CloseIdleConnections()
}

// laneState says which lane a host is in, and how sure that is.
type laneState int

const (
	laneUnknown laneState = iota // ordinary; it is not known yet when the host asks
	laneOnTrial                  // late; it is not known yet whether the host speaks TLS 1.2
	laneLate                     // TLS 1.2, in which a host can ask late
	laneUsual                    // any version
)

// laneOf returns the connections for a host.
func (t *Transport) laneOf(h *host) *lane {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lane == laneOnTrial || h.lane == laneLate {
		return &t.late
	}
	return &t.ordinary
}

// mayAskLate reports that the host may ask for the certificate late, for all that is known, and that the template
// leaves it TLS 1.2 to do so.
func (t *Transport) mayAskLate(h *host) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lane != laneUsual && t.ordinary.pooled.TLSClientConfig.MinVersion <= tls.VersionTLS12
}

// changeLane notes what an attempt showed of when the host asks, and reports whether the request is to go over the
// other lane.
func (r *roundTrip) changeLane(a *attempt, f *facts) bool {
	before, now := r.host.learn(a, f)
	if before != now {
		note := ""
		switch now {
		case laneOnTrial:
			note = "did not ask for the certificate in a TLS 1.3 handshake; it gets TLS 1.2, in which it can ask later"
		case laneUsual:
			note = "failed over TLS 1.2 before it asked for the certificate; it gets TLS 1.3 without being asked"
		}
		if req := r.upload.req; note != "" {
			eventlog.Writef(req.Context(), eventlog.Binding, "%s %s", req.URL.Host, note)
		}
	}
	if a.unasked.Load() {
		return true
	}
	return a.late && now == laneUsual && f.err != nil && !f.sent && f.callers == nil && (f.handshake || !f.written)
}

// learn returns the lane that the host was in, and the one that it is in from now on. Of attempts that overlap, the
// first one to show something settles it.
func (h *host) learn(a *attempt, f *facts) (before, now laneState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.lane
	switch {
	case a.unasked.Load() && h.lane == laneUnknown:
		h.lane = laneOnTrial
	case !a.late || h.lane != laneOnTrial || a.connection() == nil:
	case f.err == nil || f.sent:
		h.lane = laneLate
	default:
		h.lane = laneUsual
	}
	return before, h.lane
}
