// Package oauth reads the error answers of an OAuth token endpoint, as Entra writes them (RFC 6749, section 5.2).
package oauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// Error is an error answer of the token endpoint. It unwraps to the *azcore.ResponseError.
type Error struct {
	StatusCode    int
	Code          string   // the OAuth "error"; empty if the answer is not the JSON of one
	AADSTS        []string // for example "AADSTS1000901", the one in the description first
	Description   string   // first line of the error_description, without trace and correlation ids
	CorrelationID string
	Claims        bool // the answer carries a claims challenge

	response error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("the token endpoint answered %d %s", e.StatusCode, http.StatusText(e.StatusCode))
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

// Has reports whether the answer has one of the codes, whole: AADSTS5001811 is not AADSTS500181.
func (e *Error) Has(codes ...string) bool {
	return slices.ContainsFunc(e.AADSTS, func(code string) bool { return slices.Contains(codes, code) })
}

// byteOrderMark is what some servers begin a text in UTF-8 with.
var byteOrderMark = []byte("\ufeff")

// Read reads an error answer. Its body can be read again.
func Read(resp *http.Response) *Error {
	// Made by hand: runtime.NewResponseError logs the body, and Entra writes identifiers into its descriptions.
	response := &azcore.ResponseError{StatusCode: resp.StatusCode, RawResponse: resp}
	e := &Error{StatusCode: resp.StatusCode, response: response}
	var answer struct {
		Error         string          `json:"error"`
		Description   string          `json:"error_description"`
		Codes         []json.Number   `json:"error_codes"`
		CorrelationID string          `json:"correlation_id"`
		Claims        json.RawMessage `json:"claims"`
	}
	body, err := runtime.Payload(resp)
	if err != nil || json.Unmarshal(bytes.TrimPrefix(body, byteOrderMark), &answer) != nil {
		return e
	}
	e.Code, response.ErrorCode, e.CorrelationID = answer.Error, answer.Error, answer.CorrelationID
	e.Claims = len(answer.Claims) > 0
	e.Description, _, _ = strings.Cut(answer.Description, " Trace ID:")
	e.Description, _, _ = strings.Cut(e.Description, "\n")
	e.Description = strings.TrimSpace(e.Description)
	if code, _, found := strings.Cut(answer.Description, ":"); found && isAADSTS(code) {
		e.AADSTS = append(e.AADSTS, code)
	}
	for _, code := range answer.Codes {
		if code := "AADSTS" + code.String(); isAADSTS(code) && !slices.Contains(e.AADSTS, code) {
			e.AADSTS = append(e.AADSTS, code)
		}
	}
	return e
}

// isAADSTS reports whether s is "AADSTS" and digits, nothing else.
func isAADSTS(s string) bool {
	digits, ok := strings.CutPrefix(s, "AADSTS")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}
