package oauth_test

import (
	"regexp"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/stretchr/testify/require"
)

// Whatever a server answers: a code is one, whole; the text is bounded and prints.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		stale, "\ufeff" + stale, `{"error_codes":["AADSTS1",2,"x",null,{}]}`, `{"error":5,"error_codes":[500181]}`,
		`{"error_description":"AADSTS500181"}`, "", "null", "[]", "<html>",
	} {
		f.Add(seed)
	}
	code := regexp.MustCompile(`^AADSTS[0-9]+$`)
	f.Fuzz(func(t *testing.T, body string) {
		e := oauth.Read(answer(400, body))
		for _, c := range e.AADSTS {
			require.Regexp(t, code, c)
		}
		require.Less(t, utf8.RuneCountInString(e.Error()), 1200)
		for _, r := range e.Error() {
			require.False(t, unicode.IsControl(r))
		}
	})
}
