package imdstest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// wireConn is a TCP connection that an action can take away from the TLS and HTTP servers above it.
type wireConn struct {
	*net.TCPConn
	opening func() error // AtConnect
	taken   atomic.Bool
}

// wireListener accepts wireConns. Their stage AtConnect is the first read, so that a hanging one holds up no other.
type wireListener struct {
	net.Listener
	accepted func(*wireConn) error
}

func (l wireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	wire := &wireConn{TCPConn: conn.(*net.TCPConn)}
	wire.opening = sync.OnceValue(func() error { return l.accepted(wire) })
	return wire, nil
}

// listenPlain wraps the listener of a plain HTTP server.
func listenPlain(l net.Listener) net.Listener {
	return wireListener{l, func(*wireConn) error { return nil }}
}

func (c *wireConn) Read(p []byte) (int, error) {
	if err := c.opening(); err != nil {
		return 0, err
	}
	return c.TCPConn.Read(p)
}

// Write discards what the servers above still want to say on a taken connection.
func (c *wireConn) Write(p []byte) (int, error) {
	if c.taken.Load() {
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

// Close leaves a taken connection to whoever took it.
func (c *wireConn) Close() error {
	if c.taken.Load() {
		return nil
	}
	return c.TCPConn.Close()
}

// reset ends the connection by an RST.
func (c *wireConn) reset() {
	_ = c.SetLinger(0)
	_ = c.TCPConn.Close()
}

// lingering is how long a peer may take to read the last words.
const lingering = 2 * time.Second

// finish ends the connection by a FIN, and takes it. What the peer still sends is read for a while, since closing
// would answer it by an RST, which could overtake what was sent before.
func (c *wireConn) finish(done <-chan struct{}) {
	c.taken.Store(true)
	_ = c.CloseWrite()
	ended := c.drain()
	go func() {
		defer c.TCPConn.Close()
		select {
		case <-ended:
		case <-done:
		case <-time.After(lingering):
		}
	}()
}

// drain reads what the peer sends and forgets it. The channel is closed when the peer has ended the connection.
func (c *wireConn) drain() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			_, err := discard(c.TCPConn)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			_ = c.SetReadDeadline(time.Time{}) // net/http had set one, to end its own reading
		}
	}()
	return ended
}

func discard(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }
