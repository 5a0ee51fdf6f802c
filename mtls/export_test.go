package mtls

import (
	"crypto/tls"
	"net/http/httptrace"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
)

// Admit takes the binding in, as a Cache does.
func (b *Binding) Admit(c *clock.Clock) { b.admit(c) }

// RenewalIn returns how long it is until a Cache has the binding renewed, by the first who asks for it then.
func (b *Binding) RenewalIn() time.Duration { return b.renewalIn() }

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
