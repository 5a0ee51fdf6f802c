package entra

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// Token is a token as Entra issued it.
type Token struct {
	Value     string
	ExpiresOn time.Time
	RefreshOn time.Time // as Entra advised, else half-way
}

// ParseToken reads the answer to a request. A token of another type than the one asked for is refused: it would be a silent
// downgrade.
func ParseToken(resp *http.Response, asked string, now time.Time) (Token, error) {
	body, err := runtime.Payload(resp)
	if err != nil {
		return Token{}, fmt.Errorf("reading the answer of the token endpoint: %w", err)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   number `json:"expires_in"`
		RefreshIn   number `json:"refresh_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Token{}, errors.New("the answer of the token endpoint is malformed: it is not the JSON that was expected") // err could quote the token
	}
	switch {
	case answer.TokenType == "":
		return Token{}, fmt.Errorf("the answer of the token endpoint names no token_type, %s was asked for", asked)
	case !strings.EqualFold(answer.TokenType, asked):
		return Token{}, fmt.Errorf("the token endpoint answered with a token of type %.20q where %s was asked for; a downgrade is refused", answer.TokenType, asked)
	case answer.AccessToken == "":
		return Token{}, errors.New("the answer of the token endpoint has no access_token")
	case answer.ExpiresIn <= 0:
		return Token{}, errors.New("the answer of the token endpoint has no expires_in")
	}
	lifetime, refresh := answer.ExpiresIn.seconds(), answer.RefreshIn.seconds()
	if refresh <= 0 || refresh >= lifetime {
		refresh = lifetime / 2 // as MSAL does without advice
	}
	now = now.UTC()
	return Token{Value: answer.AccessToken, ExpiresOn: now.Add(lifetime), RefreshOn: now.Add(refresh)}, nil
}

// number is a count of seconds that Entra writes as a JSON number, and some deployments as a string.
type number int64

func (n *number) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var value json.Number
	if err := json.Unmarshal([]byte(strings.Trim(string(data), `"`)), &value); err != nil {
		return err
	}
	seconds, err := value.Int64()
	*n = number(seconds)
	return err
}

// maxLifetime bounds what a nonsensical expires_in can do to time arithmetic.
const maxLifetime = 365 * 24 * time.Hour

func (n number) seconds() time.Duration {
	if int64(n) > int64(maxLifetime/time.Second) {
		return maxLifetime
	}
	return time.Duration(n) * time.Second
}

// Error is an error response of the token endpoint. It unwraps to the *azcore.ResponseError.
type Error struct {
	StatusCode    int
	Code          string   // the OAuth "error"
	AADSTS        []string // for example "AADSTS1000901", the one in the description first
	Description   string   // first line of the error_description, without trace and correlation ids
	CorrelationID string

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

// ParseError reads an error response.
func ParseError(resp *http.Response) *Error {
	// Made by hand: runtime.NewResponseError logs the body, and Entra writes identifiers into its descriptions.
	response := &azcore.ResponseError{StatusCode: resp.StatusCode, RawResponse: resp}
	e := &Error{StatusCode: resp.StatusCode, response: response}
	var answer struct {
		Error         string        `json:"error"`
		Description   string        `json:"error_description"`
		Codes         []json.Number `json:"error_codes"`
		CorrelationID string        `json:"correlation_id"`
	}
	body, err := runtime.Payload(resp)
	if err != nil || json.Unmarshal(body, &answer) != nil {
		return e
	}
	e.Code, response.ErrorCode, e.CorrelationID = answer.Error, answer.Error, answer.CorrelationID
	e.Description, _, _ = strings.Cut(answer.Description, " Trace ID:")
	e.Description, _, _ = strings.Cut(e.Description, "\n")
	e.Description = strings.TrimSpace(e.Description)
	if code, _, found := strings.Cut(answer.Description, ":"); found && isAADSTS(code) {
		e.AADSTS = append(e.AADSTS, code)
	}
	for _, code := range answer.Codes {
		if code := "AADSTS" + code.String(); isAADSTS(code) && (len(e.AADSTS) == 0 || e.AADSTS[0] != code) {
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
