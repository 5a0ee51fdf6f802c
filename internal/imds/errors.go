package imds

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/bounded"
	"github.com/azmtls/azmtls/internal/failure"
)

// UnavailableError says that there is no IMDS v2 here.
type UnavailableError struct {
	reason string
	cause  error
}

func (e *UnavailableError) Error() string {
	if e.cause == nil {
		return e.reason
	}
	return fmt.Sprintf("%s: %v", e.reason, e.cause)
}

// Unwrap returns the cause, nil if IMDS v2's absence was an answer.
func (e *UnavailableError) Unwrap() error { return e.cause }

// NonRetriable marks the error as final.
func (*UnavailableError) NonRetriable() {}

// Error is an error response of IMDS. It unwraps to the *azcore.ResponseError.
type Error struct {
	StatusCode  int
	Code        string // the "error" of the body
	Description string // its "error_description"

	response error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("IMDS answered %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// Unwrap returns the *azcore.ResponseError.
func (e *Error) Unwrap() error { return e.response }

// newError reads an error response. The ResponseError is made by hand: runtime.NewResponseError logs the body.
func (c *Client) newError(resp *http.Response) error {
	e := &Error{StatusCode: resp.StatusCode}
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if body, err := runtime.Payload(resp); err == nil && json.Unmarshal(body, &answer) == nil {
		e.Code, e.Description = answer.Error, answer.Description
	}
	e.response = &azcore.ResponseError{StatusCode: resp.StatusCode, ErrorCode: e.Code, RawResponse: resp}
	if after, ok := retryAfter(resp, c.clock.Wall()); ok && after > longest(resp) && isRepeatable(resp.StatusCode) {
		return failure.Pause(e, min(after, maxPause))
	}
	return e
}

// maxPause is how long a Retry-After is heeded at the most.
const maxPause = time.Hour

// malformedError says that an answer is not the JSON that was expected.
type malformedError struct{ err error }

func (e malformedError) Error() string {
	return fmt.Sprintf("the response is malformed JSON: %v", e.err)
}
func (e malformedError) Unwrap() error { return e.err }

// isDefinite reports whether asking for a certificate again would fail the same way: IMDS refused, redirected, or gave an answer
// that is of no use. A 404 has been retried by then.
func isDefinite(err error) bool {
	if refused, ok := errors.AsType[*Error](err); ok {
		switch refused.StatusCode {
		case http.StatusBadRequest,
			http.StatusForbidden,
			http.StatusNotFound,
			http.StatusMethodNotAllowed,
			http.StatusNotImplemented:
			return true
		}
		return false
	}
	return failure.Is[malformedError](err) || failure.Is[redirectError](err) || bounded.IsTooLarge(err)
}
