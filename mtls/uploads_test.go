package mtls_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// fragile is a connection whose writes fail once the test says so.
type fragile struct {
	net.Conn
	dead *atomic.Bool
}

func (f fragile) Write(p []byte) (int, error) {
	if f.dead.CompareAndSwap(true, false) {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: mtls.ConnectionReset}
	}
	return f.Conn.Write(p)
}

// reading is a body that may be anything.
type reading func([]byte) (int, error)

func (r reading) Read(p []byte) (int, error) { return r(p) }
func (reading) Close() error                 { return nil }

// net/http itself sends once more what it could not begin to send on a connection that had served, with the body had
// again. What that body fails with is the caller's as well, and its panic does not end the process.
func TestBodyHadAgainByNetHTTP(t *testing.T) {
	for name, test := range map[string]struct {
		again io.ReadCloser
		want  error
	}{
		"works":        {io.NopCloser(strings.NewReader("payload")), nil},
		"fails":        {reading(func([]byte) (int, error) { return 0, mtls.ConnectionReset }), mtls.ConnectionReset},
		"is cut off":   {reading(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }), io.ErrUnexpectedEOF},
		"is closed":    {reading(func([]byte) (int, error) { return 0, net.ErrClosed }), net.ErrClosed},
		"panics":       {reading(func([]byte) (int, error) { panic("bug of the caller's") }), errPanic},
		"is not there": {nil, errNoBody},
	} {
		t.Run(name, func(t *testing.T) {
			server, b := issued(t, imdstest.Options{})
			var dead atomic.Bool
			template := server.MTLSTransport()
			template.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return fragile{conn, &dead}, err
			}
			transport := mtls.NewTransport(template, b)
			first, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.ResourceURL(), nil)
			require.NoError(t, err)
			resp, err := transport.Do(first)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body) // so that the connection is used again
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())

			dead.Store(true)
			body := strings.NewReader("payload")
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.ResourceURL(), body)
			require.NoError(t, err)
			asked := 0
			req.GetBody = func() (io.ReadCloser, error) {
				asked++
				if test.again == nil {
					return nil, errNoBody
				}
				return test.again, nil
			}
			resp, err = transport.Do(req)
			require.Equal(t, 1, asked, "%v", err)
			require.False(t, dead.Load(), "the write failed")
			if test.want == nil {
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 2, server.Counts().Resource)
				return
			}
			if test.want == errPanic {
				require.ErrorContains(t, err, "bug of the caller's")
			} else {
				require.ErrorIs(t, err, test.want)
			}
			var refusal *mtls.Refusal
			require.NotErrorAs(t, err, &refusal)
		})
	}
}

var (
	errPanic  = errors.New("a panic")
	errNoBody = errors.New("the file is gone")
)
