// Package secrets searches what a suite of tests emits for what must never be in it: tokens, keys, certificate
// requests, attestation JWTs, claims and full identifiers. A suite plants some of them in what it configures; those
// that the simulator makes are known by their form.
package secrets

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// forms are those of secrets that a test cannot plant, since they are made while it runs. Each is looked for in a
// text that has its sign, which takes less than an expression does.
var forms = []struct {
	what, sign string
	form       *regexp.Regexp
}{
	{"a JWT", "eyJ", regexp.MustCompile(`eyJ[\w-]{8,}\.`)},
	{"a certificate, key or request (DER)", "MII", regexp.MustCompile(`MII[A-Za-z0-9+/]{40,}`)},
	{"PEM", "-----BEGIN", regexp.MustCompile(`-----BEGIN`)},
	{"a number of an RSA key", "big.nat{", regexp.MustCompile(`big\.nat\{0x`)},
}

// The lengths of what has no sign: numbers of RSA keys (hexadecimal or longer decimal ones) and thumbprints (SHA-256 in
// base64url).
const (
	hexadecimals = 256
	thumbprint   = 43
)

// unsigned returns where the first word stands that has such a length, and what it is.
func unsigned(text string) (what string, at int) {
	begin, hex := 0, true
	for i := 0; i <= len(text); i++ {
		c := byte(' ')
		if i < len(text) {
			c = text[i]
		}
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f':
			continue
		case 'g' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
			hex = false
			continue
		}
		switch n := i - begin; {
		case hex && n >= hexadecimals:
			return "a number of an RSA key", begin
		case n == thumbprint && isThumbprint(text, begin, c):
			return "a whole thumbprint", begin
		}
		begin, hex = i+1, true
	}
	return "", -1
}

// isThumbprint reports whether a word of that length is one: not a part of a path, a host or a longer value.
func isThumbprint(text string, begin int, next byte) bool {
	before := byte(' ')
	if begin > 0 {
		before = text[begin-1]
	}
	return !strings.ContainsRune("%/+.", rune(before)) && !strings.ContainsRune("%/+=.", rune(next))
}

// most is how many findings are kept.
const most = 20

// Search is one search. The zero value is ready; it is safe for concurrent use.
type Search struct {
	mu      sync.Mutex
	planted []string
	texts   int
	bytes   int
	found   []string
}

// Plant adds values that must not be emitted from now on.
func (s *Search) Plant(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, value := range values {
		if !slices.Contains(s.planted, value) {
			s.planted = append(s.planted, value)
		}
	}
}

// Values searches all that printing the values can show.
func (s *Search) Values(values ...any) {
	for _, value := range values {
		if value == nil {
			continue
		}
		plain := fmt.Sprintf("%v", value)
		s.Text(plain)
		if more := fmt.Sprintf("%+v", value); more != plain {
			s.Text(more)
		}
		s.Text(fmt.Sprintf("%#v", value))
		if text, err := json.Marshal(value); err == nil {
			s.Text(string(text))
		}
	}
}

// Text searches a text.
func (s *Search) Text(text string) {
	var found []string
	for _, f := range forms {
		if !strings.Contains(text, f.sign) {
			continue
		}
		if at := f.form.FindStringIndex(text); at != nil {
			found = append(found, f.what+": "+around(text, at[0]))
		}
	}
	if thorough {
		if what, at := unsigned(text); at >= 0 {
			found = append(found, what+": "+around(text, at))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts++
	s.bytes += len(text)
	for _, value := range s.planted {
		if at := strings.Index(text, value); at >= 0 {
			found = append(found, "a planted value: "+around(text, at))
		}
	}
	s.found = append(s.found, found[:min(len(found), most-len(s.found))]...)
}

// around returns a part of the text, for the reader to see where it came from.
func around(text string, at int) string {
	return fmt.Sprintf("%q", text[max(0, at-100):min(len(text), at+40)])
}

// Found returns the first findings.
func (s *Search) Found() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.found)
}

// Report is what was searched.
type Report struct {
	Name    string `json:"name"` // always "secrets"
	Suite   string `json:"suite"`
	Planted int    `json:"planted"` // values, beside the forms
	Forms   int    `json:"forms"`
	Texts   int    `json:"texts"`
	Bytes   int    `json:"bytes"`
	Found   int    `json:"found"`
}

// Report returns it, for the suite of that name.
func (s *Search) Report(suite string) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Report{
		Name: "secrets", Suite: suite, Planted: len(s.planted), Forms: len(forms) + 2, // with those of a length
		Texts: s.texts, Bytes: s.bytes, Found: len(s.found),
	}
}
