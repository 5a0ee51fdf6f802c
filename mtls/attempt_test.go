package mtls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// connected returns the client's end of a TLS connection, over a connection of ours.
func connected(t *testing.T, version uint16) *tls.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	server := tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{plain(t).Certificate}, MaxVersion: version})
	go func() { _, _ = io.Copy(io.Discard, server) }()
	client := tls.Client(newConnection(ours), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, client.HandshakeContext(t.Context()))
	return client
}

// In TLS 1.3 the client is done before the server has looked at the certificate, so that what comes first on a new
// connection may be its verdict. In TLS 1.2, and on a connection that had served, it is not.
func TestFirstReadAfterTheHandshake(t *testing.T) {
	for _, test := range []struct {
		version uint16
		reused  bool
		want    bool
	}{
		{tls.VersionTLS12, false, false},
		{tls.VersionTLS12, true, false},
		{tls.VersionTLS13, false, true},
		{tls.VersionTLS13, true, false},
	} {
		a := &attempt{Context: t.Context(), upload: &upload{}}
		a.got.Store(connected(t, test.version))
		a.reused.Store(test.reused)
		f := a.finish(remote(48))
		require.False(t, f.handshake)
		require.Equal(t, test.want, f.firstRead, "%s, reused %t", tls.VersionName(test.version), test.reused)
	}
	a := &attempt{Context: t.Context(), upload: &upload{}}
	a.dialed.Store(newConnection(discard{}))
	f := a.finish(remote(48))
	require.True(t, f.handshake, "there never was a connection to write to")
	require.False(t, f.firstRead)
}

// A request counts as written once it has a connection, unless that was given up since the server had not asked for the
// certificate.
func TestRequestIsWritten(t *testing.T) {
	for _, test := range []struct{ connected, unasked, want bool }{
		{false, false, false}, {false, true, false}, {true, false, true}, {true, true, false},
	} {
		a := &attempt{Context: t.Context(), upload: &upload{}}
		if test.connected {
			a.got.Store(connected(t, tls.VersionTLS13))
		}
		a.unasked.Store(test.unasked)
		require.Equal(t, test.want, a.finish(io.EOF).written, "%+v", test)
	}
}

// An alert is told by its type, never by its text.
func TestPeerAlert(t *testing.T) {
	for _, alert := range []error{remote(48), tls.AlertError(48)} {
		got, ok := peerAlert(fmt.Errorf("write: %w", alert))
		require.True(t, ok)
		require.Equal(t, tls.AlertError(48), got)
	}
	for _, other := range []error{
		io.EOF, &net.OpError{Op: "remote error"}, &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")},
		&net.OpError{Op: "local error", Err: alertError(48)},
	} {
		_, ok := peerAlert(other)
		require.False(t, ok, "%v", other)
	}
}
