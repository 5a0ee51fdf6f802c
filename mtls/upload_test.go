package mtls

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// putting returns a request with a body.
func putting(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://resource.example", body)
	require.NoError(t, err)
	return req
}

// stuckBody is a body whose Read does not return until it is released.
type stuckBody struct {
	reading, release chan struct{}
}

func (b *stuckBody) Read([]byte) (int, error) {
	close(b.reading)
	<-b.release
	return 0, io.EOF
}

func (*stuckBody) Close() error { return nil }

// A request is not repeated while a Read of its body is under way: two would read from one source.
func TestBodyThatIsStillBeingReadIsNotRepeated(t *testing.T) {
	body := &stuckBody{reading: make(chan struct{}), release: make(chan struct{})}
	req := putting(t, body)
	req.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
	u := upload{req: req}
	first, err := u.next()
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = first.Body.Read(make([]byte, 1))
	}()
	<-body.reading
	_, err = u.next()
	require.ErrorContains(t, err, "still being read")
	close(body.release)
	<-done
	_, err = u.next()
	require.NoError(t, err)
}

// An attempt ends as soon as the Read that is under way returns, and stays ended.
func TestAttemptEndsWithItsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &stuckBody{reading: make(chan struct{}), release: make(chan struct{})}
		u := upload{req: putting(t, body)}
		_, err := u.next()
		require.NoError(t, err)
		go func() { _, _ = u.current.Read(make([]byte, 1)) }()
		<-body.reading
		ended := make(chan bool, 1)
		go func() { ended <- u.current.end() }()
		synctest.Wait()
		require.Empty(t, ended)
		close(body.release)
		require.True(t, <-ended)
		for range 2 {
			require.True(t, u.current.end())
		}
		_, err = u.current.Read(make([]byte, 1))
		require.ErrorIs(t, err, errAttemptEnded)
	})
}

// source is a body that counts how often it is closed.
type source struct {
	io.Reader
	closed int
}

func (s *source) Close() error { s.closed++; return nil }

// Each body that an attempt read from is closed, once, however the next attempt comes to its own.
func TestBodiesAreClosedOnce(t *testing.T) {
	var sources []*source
	open := func() (io.ReadCloser, error) {
		sources = append(sources, &source{Reader: strings.NewReader("payload")})
		return sources[len(sources)-1], nil
	}
	first, err := open()
	require.NoError(t, err)
	req := putting(t, first)
	req.GetBody = open
	u := upload{req: req}
	sent, err := u.next()
	require.NoError(t, err)
	require.NoError(t, sent.Body.Close())
	require.Zero(t, sources[0].closed, "another attempt may want it")
	_, err = u.reread()
	require.NoError(t, err)
	require.Equal(t, 1, sources[0].closed)
	_, err = u.current.Read(make([]byte, 1))
	require.NoError(t, err)
	_, err = u.next()
	require.NoError(t, err)
	require.NoError(t, u.current.Close())
	require.Zero(t, sources[2].closed)
	u.current.release()
	require.Equal(t, 1, sources[2].closed)
	require.True(t, u.fail())

	fourth, err := open()
	require.NoError(t, err)
	last := u.begin(fourth)
	last.release()
	require.Zero(t, sources[3].closed, "it is being sent")
	require.NoError(t, last.Close())
	require.Len(t, sources, 4)
	for n, s := range sources {
		require.Equal(t, 1, s.closed, n)
	}
}

// Who closes an answer has no use for the rest of the upload: net/http reads no more of the body then.
func TestClosedAnswerEndsTheUpload(t *testing.T) {
	u := upload{req: putting(t, strings.NewReader("payload"))}
	sent, err := u.next()
	require.NoError(t, err)
	resp := &http.Response{StatusCode: http.StatusAccepted, Body: io.NopCloser(strings.NewReader("early"))}
	u.answered(resp)
	some := make([]byte, 3)
	_, err = io.ReadFull(sent.Body, some)
	require.NoError(t, err, "an early answer does not end it")
	require.NoError(t, resp.Body.Close())
	_, err = sent.Body.Read(some)
	require.ErrorIs(t, err, errAttemptEnded)
}

// A body that ends before the Content-Length is the caller's failure, whatever the peer makes of it: no evidence, and
// nothing to repeat.
func TestBodyThatEndsEarlyIsTheCallers(t *testing.T) {
	for length, whole := range map[int64]bool{7: true, 0: true, -1: true, 8: false} {
		req := putting(t, strings.NewReader("payload"))
		req.ContentLength = length
		u := upload{req: req}
		sent, err := u.next()
		require.NoError(t, err)
		_, err = io.ReadAll(sent.Body)
		if whole {
			require.NoError(t, err)
			a := attempt{Context: t.Context(), upload: &u}
			require.NoError(t, a.callers(syscall.ECONNRESET))
			continue
		}
		require.ErrorIs(t, err, io.EOF)
		a := attempt{Context: t.Context(), upload: &u}
		require.ErrorIs(t, a.callers(syscall.ECONNRESET), io.EOF)
	}
}
