package bounded_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/azmtls/azmtls/internal/bounded"
	"github.com/stretchr/testify/require"
)

// body is one that notes that it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

// A body of exactly 1 MiB is read as it is; one byte more is an error, however it is read, before it has filled
// anything.
func TestResponse(t *testing.T) {
	require.Equal(t, 1<<20, bounded.MaxResponse)
	for name, test := range map[string]struct {
		size     int
		tooLarge bool
	}{
		"empty":        {0, false},
		"small":        {1000, false},
		"a byte below": {bounded.MaxResponse - 1, false},
		"exactly":      {bounded.MaxResponse, false},
		"a byte above": {bounded.MaxResponse + 1, true},
		"far above":    {3 * bounded.MaxResponse, true},
	} {
		for way, reader := range map[string]func(io.Reader) io.Reader{
			"at once":             func(r io.Reader) io.Reader { return r },
			"in halves":           iotest.HalfReader,
			"with data and error": iotest.DataErrReader,
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				sent := strings.Repeat("x", test.size)
				resp := &http.Response{Body: &body{Reader: reader(strings.NewReader(sent))}}
				bounded.Response(resp)
				got, err := io.ReadAll(resp.Body)
				require.Equal(t, test.tooLarge, bounded.IsTooLarge(err))
				if test.tooLarge {
					require.ErrorContains(t, err, "1 MiB")
					require.LessOrEqual(t, len(got), bounded.MaxResponse)
					n, err := resp.Body.Read(make([]byte, 10))
					require.Zero(t, n)
					require.True(t, bounded.IsTooLarge(err), "it stays so")
					return
				}
				require.NoError(t, err)
				require.True(t, sent == string(got), "not a byte is lost or changed")
			})
		}
	}
}

// A single Read with a buffer larger than what is left does not read past the limit either.
func TestOneLargeRead(t *testing.T) {
	source := strings.NewReader(strings.Repeat("x", 3*bounded.MaxResponse))
	resp := &http.Response{Body: io.NopCloser(source)}
	bounded.Response(resp)
	_, err := resp.Body.Read(make([]byte, 2*bounded.MaxResponse))
	require.True(t, bounded.IsTooLarge(err))
	require.Equal(t, 2*bounded.MaxResponse-1, source.Len(), "a byte too many was read, to know that there is one")
	_, err = resp.Body.Read(make([]byte, 10))
	require.True(t, bounded.IsTooLarge(err), "it goes on failing")
}

// What the connection fails with is not taken for anything else, and closing reaches the body.
func TestErrorsAndCloseReachTheBody(t *testing.T) {
	lost := errors.New("connection reset")
	inner := &body{Reader: io.MultiReader(strings.NewReader("begun"), iotest.ErrReader(lost))}
	resp := &http.Response{Body: inner}
	bounded.Response(resp)
	got, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, lost)
	require.False(t, bounded.IsTooLarge(err))
	require.Equal(t, "begun", string(got))
	require.NoError(t, resp.Body.Close())
	require.True(t, inner.closed)
}

// A transporter of the user's may leave the body out.
func TestNoBody(t *testing.T) {
	resp := &http.Response{}
	bounded.Response(resp)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, resp.Body.Close())
}

// The error is known again when it is wrapped, and azcore does not repeat what would be as large again.
func TestTooLargeIsFinal(t *testing.T) {
	resp := &http.Response{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", bounded.MaxResponse+1)))}
	bounded.Response(resp)
	_, err := io.ReadAll(resp.Body)
	err = fmt.Errorf("reading the response: %w", err)
	require.True(t, bounded.IsTooLarge(err))
	var final interface{ NonRetriable() }
	require.ErrorAs(t, err, &final)
	require.False(t, bounded.IsTooLarge(nil))
	require.False(t, bounded.IsTooLarge(errors.New("the response is larger than 1 MiB")))
}
