// Package bounded keeps a server from filling the memory of its client.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// MaxResponse is how much is read of a response of IMDS or Entra, in bytes. Their answers have a few thousand.
const MaxResponse = 1 << 20

// Response makes reading the body fail once it proves to be larger than MaxResponse.
func Response(resp *http.Response) {
	if resp.Body == nil { // net/http always sets it, other transporters may not
		resp.Body = http.NoBody
	}
	resp.Body = &body{ReadCloser: resp.Body, left: MaxResponse}
}

type body struct {
	io.ReadCloser
	left int
}

func (b *body) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, tooLarge{}
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, tooLarge{}
	}
	return n, err
}

type tooLarge struct{}

func (tooLarge) Error() string {
	return fmt.Sprintf("the response is larger than 1 MiB (%d bytes)", MaxResponse)
}

// NonRetriable marks the error for azcore's retry policy.
func (tooLarge) NonRetriable() {}

// IsTooLarge reports whether an error says that a response was too large.
func IsTooLarge(err error) bool {
	_, ok := errors.AsType[tooLarge](err)
	return ok
}
