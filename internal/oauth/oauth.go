// Package oauth reads the error answers of an OAuth token endpoint, as Entra writes them (RFC 6749, section 5.2).
package oauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/problem"
)

// Error is an error answer of the token endpoint. It unwraps to the *azcore.ResponseError.
type Error struct {
	StatusCode    int
	Host          string   // that answered: host[:port]
	Code          string   // the OAuth "error"; empty if the answer is not the JSON of one
	AADSTS        []string // for example "AADSTS1000901", the one in the description first
	Description   string   // first line of the error_description, without trace and correlation ids, or of a plain text
	CorrelationID string
	RetryAfter    string // the header of that name
	Claims        bool   // the answer carries a claims challenge

	response error
}

func (e *Error) Error() string {
	who := "the token endpoint"
	if e.Host != "" {
		who += " " + e.Host
	}
	text := problem.Answered(who, e.StatusCode, problem.Words(e.Code), e.Description)
	if e.RetryAfter != "" {
		text += fmt.Sprintf(" (Retry-After: %s)", e.RetryAfter)
	}
	return text
}

// Unwrap returns the *azcore.ResponseError.
func (e *Error) Unwrap() error { return e.response }

// Has reports whether the answer has one of the codes, whole: AADSTS5001811 is not AADSTS500181.
func (e *Error) Has(codes ...string) bool {
	return slices.ContainsFunc(e.AADSTS, func(code string) bool { return slices.Contains(codes, code) })
}

// Read reads an error answer. Its body can be read again.
func Read(resp *http.Response) *Error {
	// Made by hand: runtime.NewResponseError logs the body, and Entra writes identifiers into its descriptions.
	response := &azcore.ResponseError{StatusCode: resp.StatusCode}
	e := &Error{StatusCode: resp.StatusCode, RetryAfter: problem.Clean(resp.Header.Get("Retry-After")), response: response}
	if resp.Request != nil && resp.Request.URL != nil {
		e.Host = resp.Request.URL.Host
	}
	var answer struct {
		Error         string            `json:"error"`
		Description   string            `json:"error_description"`
		Codes         []json.RawMessage `json:"error_codes"`
		CorrelationID string            `json:"correlation_id"`
		Claims        json.RawMessage   `json:"claims"`
	}
	body, err := runtime.Payload(resp)
	response.RawResponse = problem.Response(resp, body)
	if err != nil {
		resp.Body = failedBody{err} // whoever reads it again is to learn why, not that it is closed
		return e
	}
	body = problem.WithoutBOM(body)
	// A member of another type than is expected of it is left out. It does not cost the others, which may refuse the
	// binding.
	if err := json.Unmarshal(body, &answer); err != nil && !failure.Is[*json.UnmarshalTypeError](err) {
		e.Description = problem.Read(body).Text
		return e
	}
	e.Code, response.ErrorCode, e.CorrelationID = answer.Error, answer.Error, problem.Clean(answer.CorrelationID)
	e.Claims = !slices.Contains([]string{"", "null", `""`}, string(answer.Claims))
	e.Description, _, _ = strings.Cut(answer.Description, " Trace ID:")
	e.Description, _, _ = strings.Cut(e.Description, "\n")
	e.Description = problem.Words(e.Description)
	if code, _, found := strings.Cut(answer.Description, ":"); found && isAADSTS(code) {
		e.AADSTS = append(e.AADSTS, code)
	}
	for _, item := range answer.Codes {
		if code := itemCode(item); isAADSTS(code) && !slices.Contains(e.AADSTS, code) {
			e.AADSTS = append(e.AADSTS, code)
		}
	}
	return e
}

// failedBody is the body of an answer that was cut short.
type failedBody struct{ err error }

func (b failedBody) Read([]byte) (int, error) { return 0, b.err }
func (failedBody) Close() error               { return nil }

// itemCode returns the code of an item of error_codes: a number, or a string of it, with or without "AADSTS" before it.
// What it returns of any other item is no code.
func itemCode(item json.RawMessage) string {
	return "AADSTS" + strings.TrimPrefix(strings.Trim(string(item), `"`), "AADSTS")
}

// isAADSTS reports whether s is "AADSTS" and digits, nothing else.
func isAADSTS(s string) bool {
	digits, ok := strings.CutPrefix(s, "AADSTS")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}
