package oauth_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/stretchr/testify/require"
)

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}
}

const (
	trace       = "aaaaaaaa-1111-2222-3333-444444444444"
	correlation = "bbbbbbbb-1111-2222-3333-444444444444"
)

// stale is an answer as Entra writes it.
const stale = `{"error":"invalid_client","error_description":"AADSTS1000901: The certificate cannot be used.\r\n` +
	`Trace ID: ` + trace + `\r\nCorrelation ID: ` + correlation + `\r\nTimestamp: 2026-09-01 12:00:00Z",` +
	`"error_codes":[1000901,7000222],` +
	`"timestamp":"2026-09-01 12:00:00Z","trace_id":"` + trace + `","correlation_id":"` + correlation + `",` +
	`"error_uri":"https://login.microsoftonline.com/error?code=1000901"}`

func TestRead(t *testing.T) {
	resp := answer(401, stale)
	for _, req := range []*http.Request{nil, {}, {URL: &url.URL{Host: "entra.example:444"}}} {
		resp := answer(401, stale)
		resp.Request = req
		named := req != nil && req.URL != nil
		e := oauth.Read(resp)
		require.Equal(t, named, e.Host == "entra.example:444")
		require.Equal(t, named, strings.Contains(e.Error(), "the token endpoint entra.example:444 answered"))
	}
	e := oauth.Read(resp)
	require.Equal(t, 401, e.StatusCode)
	require.Equal(t, "invalid_client", e.Code)
	require.Equal(t, []string{"AADSTS1000901", "AADSTS7000222"}, e.AADSTS, "each once")
	require.Equal(t, "AADSTS1000901: The certificate cannot be used.", e.Description)
	require.Equal(t, correlation, e.CorrelationID)
	require.False(t, e.Claims)

	var response *azcore.ResponseError
	require.ErrorAs(t, e, &response)
	require.Equal(t, 401, response.StatusCode)
	require.Equal(t, "invalid_client", response.ErrorCode)
	require.Equal(t, 401, response.RawResponse.StatusCode)
}

// The first reader is the table of evidence, the second who explains the error, the third the user: each finds the
// whole body.
func TestBodyCanBeReadAgain(t *testing.T) {
	resp := answer(401, stale)
	first, second := oauth.Read(resp), oauth.Read(resp)
	require.Equal(t, first.AADSTS, second.AADSTS)
	require.Equal(t, first.Error(), second.Error())
	left, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, stale, string(left))
}

// The text of the error goes into logs: the status, the code and the first line of the description, whose trace and
// correlation ids are of this one answer. Nothing else of the body is in it, and azcore's own text, which quotes the
// body, is not either.
func TestTextNamesNoIdentifiers(t *testing.T) {
	const status = "the token endpoint answered 401 Unauthorized"
	for name, test := range map[string]struct{ body, want string }{
		"ids in further lines": {stale, status + " invalid_client: AADSTS1000901: The certificate cannot be used."},
		"ids in the same line": {`{"error":"invalid_client","error_description":"AADSTS7000222: Expired. ` +
			`Trace ID: ` + trace + ` Correlation ID: ` + correlation + ` Timestamp: 2026-09-01 12:00:00Z"}`,
			status + " invalid_client: AADSTS7000222: Expired."},
		"no description": {`{"error":"x","correlation_id":"` + correlation + `"}`, status + " x"},
		"no code":        {`{"error_description":"Out of order"}`, status + ": Out of order"},
		"not OAuth":      {`{"message":"` + trace + `"}`, status},
		"not JSON":       {"<html>" + trace + "</html>", status},
		"second lines":   {`{"error":"x","error_description":"\nsecond ` + trace + `"}`, status + " x"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, oauth.Read(answer(401, test.body)).Error())
		})
	}
}

// A code counts as the prefix of the description and as an item of error_codes, there as a number or as a string, and
// nowhere else: Entra echoes scopes, claims and names of the caller's in its descriptions, and an echoed code would
// evict a good binding.
func TestCodes(t *testing.T) {
	for name, test := range map[string]struct{ members, want string }{
		"prefix alone":                 {`"error_description":"AADSTS500181: Bad certificate"`, "500181"},
		"numbers":                      {`"error_codes":[500181,70011]`, "500181 70011"},
		"strings":                      {`"error_codes":["500181","70011"]`, "500181 70011"},
		"whole codes as strings":       {`"error_codes":["AADSTS500181"]`, "500181"},
		"mixed":                        {`"error_codes":[500181,"70011"]`, "500181 70011"},
		"twice":                        {`"error_codes":[500181,"500181","AADSTS500181"]`, "500181"},
		"prefix and number":            {`"error_description":"AADSTS7: x","error_codes":[500181,7]`, "7 500181"},
		"spaced":                       {`"error_codes": [ 500181 , 70011 ] `, "500181 70011"},
		"malformed items between":      {`"error_codes":["x",null,{},[5],true,"",-5,1.5,"AADSTS","5 ",70011]`, "70011"},
		"echoed scope":                 {`"error_description":"AADSTS70011: Scope AADSTS500181: is bad"`, "70011"},
		"echoed scope, no own code":    {`"error_description":"The scope AADSTS500181: is not valid."`, ""},
		"echoed in quotes":             {`"error_description":"'AADSTS500181:' is no resource"`, ""},
		"echoed claim in a later line": {`"error_description":"AADSTS50079: Claims:\nAADSTS500181: {}"`, "50079"},
		"echoed after a colon":         {`"error_description":"Invalid scope:AADSTS500181: x"`, ""},
		"echoed in error":              {`"error":"AADSTS500181: x"`, ""},
		"in error_uri":                 {`"error_uri":"AADSTS500181: x"`, ""},
		"in suberror":                  {`"suberror":"AADSTS500181:"`, ""},
		"prefix without a colon":       {`"error_description":"AADSTS500181 Bad certificate"`, ""},
		"nothing but a code":           {`"error_description":"AADSTS500181"`, ""},
		"prefix with more than digits": {`"error_description":"AADSTS500181x: Bad certificate"`, ""},
		"prefix without digits":        {`"error_description":"AADSTS: Bad certificate"`, ""},
		"other case":                   {`"error_description":"aadsts500181: Bad certificate"`, ""},
		"blank first":                  {`"error_description":" AADSTS500181: Bad certificate"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var codes []string
			for _, code := range oauth.Read(answer(400, "{"+test.members+"}")).AADSTS {
				digits, ok := strings.CutPrefix(code, "AADSTS")
				require.True(t, ok, code)
				codes = append(codes, digits)
			}
			require.Equal(t, test.want, strings.Join(codes, " "))
		})
	}
}

// Has is of whole codes: those that begin or end alike mean something else (392196 is of a resource, 3921996 of a
// tenant).
func TestHas(t *testing.T) {
	e := &oauth.Error{AADSTS: []string{"AADSTS5001811", "AADSTS3921996"}}
	require.True(t, e.Has("AADSTS3921996"))
	require.True(t, e.Has("AADSTS1", "AADSTS5001811"))
	for _, code := range []string{"AADSTS500181", "AADSTS392196", "AADSTS", "5001811", "aadsts5001811", ""} {
		require.False(t, e.Has(code), code)
	}
	require.False(t, e.Has())
	require.False(t, (&oauth.Error{}).Has("AADSTS5001811"))
}

// One member that is not what it should be does not cost the rest: without its code, an answer refuses nothing, and the
// binding that Entra refused would be presented on and on.
func TestMalformedMembersLoseNothingElse(t *testing.T) {
	for name, malformed := range map[string]string{
		"code that is no number":  `"error_codes":["certificate"]`,
		"codes that are no array": `"error_codes":"1000901"`,
		"codes in an object":      `"error_codes":{"1000901":true}`,
		"codes of null":           `"error_codes":null`,
		"huge number":             `"error_codes":[1e999]`,
		"correlation id":          `"correlation_id":[5]`,
		"trace id":                `"trace_id":5`,
		"description":             `"error_description":{"text":"AADSTS500181: x"}`,
	} {
		for order, body := range map[string]string{
			"before": `{` + malformed + `,"error":"invalid_client"}`,
			"after":  `{"error":"invalid_client",` + malformed + `}`,
		} {
			t.Run(name+" "+order, func(t *testing.T) {
				e := oauth.Read(answer(401, body))
				require.Equal(t, "invalid_client", e.Code)
				require.Empty(t, e.AADSTS)
			})
		}
	}
	e := oauth.Read(answer(401, `{"error":5,"error_description":"AADSTS500181: x","error_codes":[{},7]}`))
	require.Empty(t, e.Code)
	require.Equal(t, []string{"AADSTS500181", "AADSTS7"}, e.AADSTS)
}

// Only a challenge that says something is one.
func TestClaims(t *testing.T) {
	for body, want := range map[string]bool{
		`{"error":"interaction_required","claims":"{\"access_token\":{}}"}`: true,
		`{"error":"interaction_required","claims":{"access_token":{}}}`:     true,
		`{"error":"interaction_required","claims":null}`:                    false,
		`{"error":"interaction_required","claims":""}`:                      false,
		`{"error":"interaction_required"}`:                                  false,
	} {
		require.Equal(t, want, oauth.Read(answer(400, body)).Claims, body)
	}
}

// lost is a body that breaks off, and says of the next read that it is closed, as net/http's does.
type lost struct{ closed bool }

func (l *lost) Close() error { l.closed = true; return nil }

func (l *lost) Read([]byte) (int, error) {
	if l.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return 0, errors.New("reset")
}

// Whoever reads a body that was lost learns why.
func TestLostBody(t *testing.T) {
	body := &lost{}
	resp := &http.Response{StatusCode: 502, Body: body}
	oauth.Read(resp)
	require.True(t, body.closed)
	n, err := resp.Body.Read(make([]byte, 1))
	require.Zero(t, n)
	require.EqualError(t, err, "reset")
}

// What is not the JSON object of an OAuth error is an error with its status, and evidence of nothing.
func TestNotAnOAuthError(t *testing.T) {
	lost := io.MultiReader(strings.NewReader(stale), iotest.ErrReader(errors.New("reset")))
	for name, body := range map[string]io.ReadCloser{
		"nil":                 nil,
		"none":                http.NoBody,
		"not JSON":            io.NopCloser(strings.NewReader("AADSTS500181: the gateway")),
		"cut short":           io.NopCloser(strings.NewReader(stale[:len(stale)-1])),
		"something behind it": io.NopCloser(strings.NewReader(stale + stale)),
		"array":               io.NopCloser(strings.NewReader("[" + stale + "]")),
		"string":              io.NopCloser(strings.NewReader(`"AADSTS500181: x"`)),
		"null":                io.NopCloser(strings.NewReader("null")),
		"lost":                io.NopCloser(lost),
	} {
		t.Run(name, func(t *testing.T) {
			e := oauth.Read(&http.Response{StatusCode: 502, Body: body})
			require.Empty(t, e.Code)
			require.Empty(t, e.AADSTS)
			require.False(t, e.Claims)
			want := "the token endpoint answered 502 Bad Gateway"
			if name == "not JSON" {
				want += ": AADSTS500181: the gateway" // shown, but no code
			}
			require.Equal(t, want, e.Error())
			var response *azcore.ResponseError
			require.ErrorAs(t, e, &response)
			require.Equal(t, 502, response.StatusCode)
			require.Empty(t, response.ErrorCode)
		})
	}
}

// A byte order mark before the JSON does not hide what Entra says.
func TestByteOrderMarkIsSkipped(t *testing.T) {
	for _, mark := range []string{"", "\ufeff"} {
		body := mark + `{"error":"invalid_client","error_codes":[500181]}`
		e := oauth.Read(&http.Response{StatusCode: http.StatusUnauthorized, Body: io.NopCloser(strings.NewReader(body))})
		require.Equal(t, "invalid_client", e.Code)
		require.True(t, e.Has("AADSTS500181"))
	}
}
