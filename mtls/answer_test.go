package mtls

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// endless is a body without an end that counts what was read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func (e *endless) Close() error { return nil }

// What a resource says of the certificate stands in the first 64 KiB of an answer, if at all: no more is held in
// memory, and the caller gets it all.
func TestBeginningOfAnAnswer(t *testing.T) {
	body := &endless{}
	resp := &http.Response{Body: body}
	require.Len(t, peek(resp), 64<<10)
	require.LessOrEqual(t, body.read, 64<<10)

	whole := strings.Repeat("a", 64<<10) + "the end"
	resp.Body = io.NopCloser(strings.NewReader(whole))
	for range 2 {
		require.Equal(t, whole[:64<<10], string(peek(resp)))
	}
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, whole, string(got))
}
