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
