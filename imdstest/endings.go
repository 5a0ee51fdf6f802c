package imdstest

import "time"

// Reset is the action that ends the connection by an RST.
type Reset struct{}

func (Reset) misfit(Fault) string { return "" }

func (Reset) strike(m *moment) error {
	m.wire.reset()
	return errBroken
}

// EOF is the action that ends the connection by a FIN, without a close_notify of TLS.
type EOF struct{}

func (EOF) misfit(Fault) string { return "" }

func (EOF) strike(m *moment) error {
	m.wire.finish(m.server.done)
	return errBroken
}

// CloseNotify is the action that ends the connection as TLS wants it: by a close_notify and a FIN. On plain HTTP it
// is EOF.
type CloseNotify struct{}

func (CloseNotify) misfit(Fault) string { return "" }

func (CloseNotify) strike(m *moment) error {
	if m.alert != nil {
		_ = m.alert(levelWarning, alertCloseNotify) // if it cannot be sent, the connection has ended already
	}
	return EOF{}.strike(m)
}

// Alert is the action that sends the fatal TLS alert of this number (RFC 8446, section 6) and ends the connection. It
// goes with AtHello, where it is sent in the clear, and with AtCertificate.
type Alert uint8

func (Alert) misfit(f Fault) string {
	if f.At != AtHello && f.At != AtCertificate {
		return "an alert is sent in a handshake, AtHello or AtCertificate"
	}
	return ""
}

func (a Alert) strike(m *moment) error {
	if err := m.alert(levelFatal, uint8(a)); err != nil {
		m.wire.reset()
		return err
	}
	return EOF{}.strike(m)
}

// Hang is the action that does nothing more until the server is closed or the peer ends the connection.
type Hang struct{}

func (Hang) misfit(Fault) string { return "" }

func (Hang) strike(m *moment) error {
	select {
	case <-m.gone():
	case <-m.server.done:
	}
	return Reset{}.strike(m)
}

// Delay is the action that goes on as if nothing had happened, but only after this time, or when the server is closed.
type Delay time.Duration

func (Delay) misfit(Fault) string { return "" }

func (d Delay) strike(m *moment) error {
	select {
	case <-time.After(time.Duration(d)):
	case <-m.server.done:
	}
	return nil
}
