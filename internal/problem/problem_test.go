package problem_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/azmtls/azmtls/internal/problem"
	"github.com/stretchr/testify/require"
)

// What a server says reaches the reader, in whichever form the server writes it, and nothing else does.
func TestRead(t *testing.T) {
	for body, want := range map[string]problem.Problem{
		`{"error":"invalid_request","error_description":"Identity not found"}`: {Code: "invalid_request", Text: "Identity not found"},
		`{"error":"bad","message":"m"}`:                                        {Code: "bad", Text: "m"},
		`{"error":"bad","error_description":"d","message":"m"}`:                {Code: "bad", Text: "d"},
		`{"message":"m","correlationId":"c"}`:                                  {Text: "m", CorrelationID: "c"},
		`{"error":"e","correlation_id":"c"}`:                                   {Code: "e", CorrelationID: "c"},
		`{"error":{"code":"Forbidden","message":"by policy"}}`:                 {Code: "Forbidden", Text: "by policy"},
		`{"error":{"code":"Forbidden"},"message":"m"}`:                         {Code: "Forbidden", Text: "m"},
		`{"error":{"code":5,"message":"m"}}`:                                   {Text: "m"},
		`{"error":["x"],"error_description":7,"message":"m"}`:                  {Text: "m"},
		"\ufeff{\"error\":\"e\"}":                                              {Code: "e"},
		"\n  Too many requests\r\nsecond line":                                 {Text: "Too many requests"},
		"connecting to 169.254.169.254:80: unreachable network":                {Text: "connecting to 169.254.169.254:80: unreachable network"},
		"<!DOCTYPE html><title>Welcome</title>":                                {},
		`{"error":`:                                                            {},
		`"text"`:                                                               {Text: `"text"`},
		"":                                                                     {},
		"null":                                                                 {},
	} {
		require.Equal(t, want, problem.Read([]byte(body)), body)
	}
}

// What is shown fits on a line of a terminal and does nothing to it.
func TestClean(t *testing.T) {
	require.Equal(t, "a b c", problem.Clean(" a\r\n\t b \u2028c "))
	require.Equal(t, "[31mred", problem.Clean("\x1b[31mred\x00\x7f\u202e"))
	require.Equal(t, strings.Repeat("ä", problem.MaxText), problem.Clean(strings.Repeat("ä", problem.MaxText)))
	require.Equal(t, strings.Repeat("ä", problem.MaxText)+"…", problem.Clean(strings.Repeat("ä", 1<<20)))
	require.Equal(t, "ab", problem.Clean("a\xff\xfeb"))
	require.Equal(t, strings.Repeat("a ", problem.MaxText/2)+"…", problem.Clean(strings.Repeat("a\n", problem.MaxText)))
}

// Who answered, with what status and which words, stands in one line; what was not said leaves no mark.
func TestAnswered(t *testing.T) {
	for _, test := range []struct{ code, text, want string }{
		{"no_access", "by policy", "IMDS answered 403 Forbidden no_access: by policy"},
		{"no_access", "", "IMDS answered 403 Forbidden no_access"},
		{"", "by policy", "IMDS answered 403 Forbidden: by policy"},
		{"", "", "IMDS answered 403 Forbidden"},
	} {
		require.Equal(t, test.want, problem.Answered("IMDS", 403, test.code, test.text))
	}
}

// Identifiers of clients and tenants are masked in all that is shown, where the text is cut too. The correlation id
// is for the reader to quote.
func TestWords(t *testing.T) {
	const id = "11111111-2222-3333-4444-555555555555"
	require.Equal(t, "of 111111… in 111111…", problem.Words("of "+id+"\n in "+id))
	require.NotContains(t, problem.Words(strings.Repeat("a", problem.MaxText-35)+id), "-2222")
	for _, body := range []string{
		`{"error":"` + id + `","error_description":"` + id + `","correlationId":"` + id + `"}`,
		`{"error":{"code":"` + id + `","message":"` + id + `"},"correlation_id":"` + id + `"}`,
	} {
		want := problem.Problem{Code: "111111…", Text: "111111…", CorrelationID: id}
		require.Equal(t, want, problem.Read([]byte(body)))
	}
	require.Equal(t, "no "+"111111…", problem.Read([]byte("no "+id)).Text)
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{`{"error":"e","error_description":"d"}`, `{"error":{"code":"c"}}`, "text\nmore", "\ufeff{}", "<html>", "\x1b["} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := problem.Read(body)
		for _, s := range []string{p.Code, p.Text, p.CorrelationID} {
			require.LessOrEqual(t, utf8.RuneCountInString(s), problem.MaxText+1)
			require.False(t, strings.ContainsFunc(s, unicode.IsControl))
			require.Equal(t, s, problem.Clean(s), "cleaning is done once")
		}
	})
}

// The response that an error carries shows neither identifiers nor what could harm a terminal, and reading it costs the
// original nothing.
func TestResponse(t *testing.T) {
	const tenant = "99999999-8888-7777-6666-555555555555"
	req := httptest.NewRequest(
		http.MethodPost,
		"https://login.example/"+tenant+"/oauth2/v2.0/token?secret=1",
		strings.NewReader("csr"),
	)
	req.Header.Set("Authorization", "secret")
	resp := &http.Response{
		StatusCode: 400, Status: "400 Bad Request", Header: http.Header{"Retry-After": {"7"}, "Set-Cookie": {"a=b"}}, Request: req,
	}
	c := problem.Response(resp, []byte("{\n\t\"error_description\": \"\x1b[0m"+tenant+"\"}"+strings.Repeat("x", 1<<20)))
	body, err := io.ReadAll(c.Body)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(body), "{\n\t\"error_description\": \"[0m999999…\"}xxx"), string(body[:60]))
	require.Less(t, len(body), 5<<10)
	require.Equal(
		t,
		"https://login.example/999999…/oauth2/v2.0/token",
		c.Request.URL.Scheme+"://"+c.Request.URL.Host+c.Request.URL.Path,
	)
	require.Empty(t, c.Request.Header)
	require.Nil(t, c.Request.Body)
	require.Equal(t, http.Header{"Retry-After": {"7"}}, c.Header)
	require.Equal(t, 400, c.StatusCode)
	require.Nil(t, problem.Response(&http.Response{}, nil).Request)
}
