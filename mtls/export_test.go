package mtls

import (
	"crypto/tls"
	"net/http/httptrace"
)

// LastWords returns what an attempt that lost this connection is reported as.
func LastWords(conn *tls.Conn, loss error) error {
	a := &attempt{}
	a.gotConn(httptrace.GotConnInfo{Conn: conn})
	return a.lastWords(loss)
}

// JudgeFirstRead says what an error means that ended a fresh TLS 1.3 connection after our certificate was sent.
func JudgeFirstRead(err error) string {
	switch judge(&facts{token: true, sent: true, firstRead: true, err: err}) {
	case refused:
		return "refused"
	case askKey:
		return "lost"
	default:
		return "neither"
	}
}

// ConnectionReset is what a reset is on this system.
const ConnectionReset = connectionReset
