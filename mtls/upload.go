package mtls

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/limits"
)

// upload hands the body of a request to one attempt after the other.
type upload struct {
	req     *http.Request
	current *attemptBody // nil before the first attempt
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// next returns the request with a body of the attempt's own, at its start. A body of which nothing was read yet is the
// same one; any other must be had again (GetBody), and not be in use any more.
func (u *upload) next() (*http.Request, error) {
	if !hasBody(u.req) {
		return u.req, nil
	}
	source := u.req.Body
	if last := u.current; last != nil {
		if !last.end() {
			return nil, errors.New("its body is still being read")
		}
		source = last.source
		if last.started {
			last.closeSource()
			var err error
			if source, err = u.again(); err != nil {
				return nil, err
			}
		}
	}
	again := *u.req
	again.Body = u.begin(source)
	if u.req.GetBody != nil {
		again.GetBody = u.reread
	}
	return &again, nil
}

func (u *upload) begin(source io.ReadCloser) *attemptBody {
	u.current = &attemptBody{source: source, left: u.req.ContentLength, turn: make(chan struct{}, 1)}
	return u.current
}

// reread returns the body for net/http, which itself sends once more what it could not begin to send on a connection
// that had served.
func (u *upload) reread() (io.ReadCloser, error) {
	if !u.current.end() {
		return nil, errors.New("mtls: the request's body is still being read")
	}
	u.current.closeSource()
	source, err := u.again()
	if err != nil {
		return nil, callers.NewError(fmt.Errorf("mtls: the request was not sent again, as %w", err))
	}
	return u.begin(source), nil
}

// again returns the body once more.
func (u *upload) again() (body io.ReadCloser, err error) {
	if u.req.GetBody == nil {
		return nil, errors.New("its body cannot be read again")
	}
	err = callers.Guard("GetBody", func() error { body, err = u.req.GetBody(); return err })
	if err != nil {
		return nil, fmt.Errorf("its body cannot be read again: %w", err)
	}
	return body, nil
}

// fail ends the last attempt and the upload with it. It reports whether the body is in use no more, so that the caller
// may read it again.
func (u *upload) fail() (free bool) {
	if u.current == nil {
		if hasBody(u.req) {
			_ = u.req.Body.Close()
		}
		return true
	}
	free = u.current.end()
	u.current.closeSource()
	return free
}

// answered lets the upload of the last attempt go on until the answer's body is closed.
func (u *upload) answered(resp *http.Response) {
	if u.current == nil {
		return
	}
	u.current.release()
	if resp.StatusCode != http.StatusSwitchingProtocols { // its body is a connection
		resp.Body = &answerBody{resp.Body, u.current}
	}
}

// answerBody is the body of an answer: closing it ends the upload.
type answerBody struct {
	io.ReadCloser
	upload *attemptBody
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.upload.end()
	return err
}

// attemptBody is the body of a request as one attempt reads it. net/http may go on reading after RoundTrip has
// returned; the attemptBody ends that, since the next attempt may read from the same source.
type attemptBody struct {
	source  io.ReadCloser
	turn    chan struct{} // held during a Read; guards started and left
	started bool          // something may have been read
	left    int64         // what the request's Content-Length promises yet; not positive: nothing
	failed  atomic.Pointer[callers.Error]

	ended    atomic.Bool // nothing more may be read
	closed   atomic.Bool // net/http needs it no more
	released atomic.Bool // no other attempt will want the source
	closing  sync.Once
}

var errAttemptEnded = errors.New("mtls: the attempt that this body belongs to has ended")

func (b *attemptBody) Read(p []byte) (int, error) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.ended.Load() {
		return 0, errAttemptEnded
	}
	b.started = true
	n, err := readBody(b.source, p)
	if b.left -= int64(n); err == io.EOF && b.left > 0 {
		// net/http says so too, unless it sees first what the peer makes of it.
		err = callers.NewError(fmt.Errorf("the body ended %d bytes before the request's Content-Length: %w", b.left, io.EOF))
	}
	if failed, ok := err.(*callers.Error); ok {
		b.failed.Store(failed)
	}
	return n, err
}

// Close closes the source if no other attempt may want it.
func (b *attemptBody) Close() error {
	b.closed.Store(true)
	if b.released.Load() {
		b.closeSource()
	}
	return nil
}

// release says that no other attempt will want the source.
func (b *attemptBody) release() {
	b.released.Store(true)
	if b.closed.Load() {
		b.closeSource()
	}
}

func (b *attemptBody) closeSource() { b.closing.Do(func() { _ = b.source.Close() }) }

// end lets nothing more be read, and reports whether no Read is under way any more. One that is gets a moment.
func (b *attemptBody) end() bool {
	b.ended.Store(true)
	if b.idle() {
		return true
	}
	timer := time.NewTimer(limits.BodyRead)
	defer timer.Stop()
	select {
	case b.turn <- struct{}{}:
		<-b.turn
		return true
	case <-timer.C:
		return b.idle() // a busy machine may run this long after the moment has passed
	}
}

// idle reports that no Read is under way.
func (b *attemptBody) idle() bool {
	select {
	case b.turn <- struct{}{}:
		<-b.turn
		return true
	default:
		return false
	}
}
