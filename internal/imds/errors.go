package imds

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/bounded"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/problem"
)

// Absence is why there is no IMDS v2 for a credential.
type Absence int

const (
	// NoIMDS: nothing answers at its address, or what answers is not IMDS.
	NoIMDS Absence = iota
	// NoVersion2: IMDS is there, without version 2.
	NoVersion2
	// NoIdentity: the machine has no identity, or several, and the credential names none.
	NoIdentity
)

// UnavailableError says that there is no IMDS v2 here, or none that is for this credential.
type UnavailableError struct {
	Absence Absence

	reason string
	cause  error
}

// newStranger returns the error of an answer that does not come from IMDS.
func newStranger(req *http.Request, resp *http.Response) *UnavailableError {
	return &UnavailableError{Absence: NoIMDS, reason: fmt.Sprintf(
		"IMDS was looked for at %s://%s, and what answers there is not IMDS: it said %d %s, and its Server header is %.40q",
		req.URL.Scheme, req.URL.Host, resp.StatusCode, http.StatusText(resp.StatusCode), resp.Header.Get("Server"),
	)}
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
	StatusCode int
	problem.Problem
	RetryAfter time.Duration // how long it asks to be left alone; 0: it does not

	response error
}

func (e *Error) Error() string {
	text := problem.Answered("IMDS", e.StatusCode, e.Code, e.Text)
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (to be asked again in %s)", e.RetryAfter)
	}
	return text
}

// Unwrap returns the *azcore.ResponseError.
func (e *Error) Unwrap() error { return e.response }

// newError reads an error response. The ResponseError is made by hand: runtime.NewResponseError logs the body.
func (c *Client) newError(resp *http.Response) error {
	e := &Error{StatusCode: resp.StatusCode}
	body, err := runtime.Payload(resp)
	if err == nil {
		e.Problem = problem.Read(body)
	}
	e.response = &azcore.ResponseError{
		StatusCode: resp.StatusCode, ErrorCode: e.Code, RawResponse: problem.Response(resp, body),
	}
	e.RetryAfter, _ = retryAfter(resp, c.clock.Wall())
	if e.RetryAfter > longest(resp) && isRepeatable(resp.StatusCode) {
		return failure.Pause(e, min(e.RetryAfter, maxPause))
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

// isDefinite reports whether asking for a certificate again would fail the same way: IMDS refused, redirected, or gave
// an answer that is of no use. A 404 has been retried by then.
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

// IsRefusal reports whether an error says that IMDS v2 is there and definitely does not certify what it was asked to:
// the ordinary case on a machine whose keys it does not take.
func IsRefusal(err error) bool { return failure.IsDefinite(err) && failure.Is[*Error](err) }
