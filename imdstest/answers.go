package imdstest

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// Respond is the action that answers so. AtRequest it does so instead of serving the request, AtAnswer instead of the
// answer to the request that was served.
type Respond struct {
	// Status, 0: 200.
	Status int
	// RetryAfter is the Retry-After header, rounded up to seconds. 0: none.
	RetryAfter time.Duration
	// Header is set over the headers that all answers of the endpoint have. A nil value removes one.
	Header http.Header
	// Body is sent as it is.
	Body string
}

func (a Respond) misfit(f Fault) string {
	if a.Status != 0 && (a.Status < 200 || a.Status > 999) {
		return fmt.Sprintf("%d is not the status of an answer", a.Status)
	}
	return wholeAnswer(f)
}

func (a Respond) strike(m *moment) error {
	m.renew()
	if a.Status != 0 {
		m.answer.status = a.Status
	}
	if a.RetryAfter > 0 {
		m.answer.header.Set("Retry-After", fmt.Sprint(int(math.Ceil(a.RetryAfter.Seconds()))))
	}
	m.answer.body.WriteString(a.Body)
	return SetHeader(a.Header).strike(m)
}

// wholeAnswer says why a fault whose action gives the answer makes no sense.
func wholeAnswer(f Fault) string {
	if f.At != AtRequest && f.At != AtAnswer {
		return "an answer can be given AtRequest or AtAnswer"
	}
	return ""
}

// redirected is where Redirect points. Requests for it are rejected.
const redirected = "redirected"

// Redirect returns the action that answers 307, to the same host. Following it is among [Server.Rejections].
func Redirect() Action {
	return Respond{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {redirected}}}
}

// Malformed returns the action that answers 200 with JSON that breaks off.
func Malformed() Action { return respondJSON(`{"access_token": "unfinished`) }

// Oversized returns the action that answers 200 with more than 1 MiB of JSON.
func Oversized() Action { return respondJSON(`{"padding":"` + strings.Repeat("x", 2<<20) + `"}`) }

func respondJSON(body string) Action {
	return Respond{Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

// EntraError is the action that answers with an error as Entra does, AtRequest or AtAnswer of Token.
type EntraError struct {
	// OAuth is the error, for example "invalid_client".
	OAuth string
	// AADSTS is the code, with or without that prefix, for example "AADSTS700027".
	AADSTS string
	// Status, 0: 401 for invalid_client, else 400.
	Status int
}

func (a EntraError) misfit(f Fault) string {
	switch {
	case f.Endpoint != Token:
		return "Entra's errors come from the endpoint Token"
	case a.code() == "" || strings.Trim(a.code(), "0123456789") != "":
		return fmt.Sprintf("%q is no AADSTS code", a.AADSTS)
	}
	return Respond{Status: a.Status}.misfit(f)
}

func (a EntraError) code() string { return strings.TrimPrefix(a.AADSTS, "AADSTS") }

func (a EntraError) strike(m *moment) error {
	m.renew()
	status := a.Status
	if status == 0 {
		status = entraStatus(a.OAuth)
	}
	writeEntraError(m.answer, m.request, status, a.OAuth, a.code(), "injected by the test")
	return nil
}
