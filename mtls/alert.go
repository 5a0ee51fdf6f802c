package mtls

import (
	"crypto/tls"
	"errors"
	"net"
	"reflect"
)

// certificateAlerts are the TLS alerts by which a server refuses a client certificate (RFC 8446, section 6.2).
var certificateAlerts = []tls.AlertError{
	40, // handshake_failure
	42, // bad_certificate
	43, // unsupported_certificate
	44, // certificate_revoked
	45, // certificate_expired
	46, // certificate_unknown
	48, // unknown_ca
	49, // access_denied
	51, // decrypt_error
}

// alertCertificateRequired is the one that TLS 1.3 adds to them.
const alertCertificateRequired tls.AlertError = 116

// peerAlert returns the TLS alert that the server sent. crypto/tls reports it as a *net.OpError with Op "remote error"
// whose Err is of an unexported type with the kind of a uint8; only QUIC gets the exported tls.AlertError.
func peerAlert(err error) (tls.AlertError, bool) {
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		return alert, true
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
		return tls.AlertError(v.Uint()), true
	}
	return 0, false
}
