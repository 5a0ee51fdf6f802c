// Package problem reads what a server says of a failure, so that it can be shown: IMDS, Entra and the machines before
// them write it in a handful of forms.
package problem

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"
)

// MaxText is how much of a server's text is shown, in characters.
const MaxText = 500

// Problem is what a server says of a failure. Each part may be empty.
type Problem struct {
	Code          string // the "error", or the "code" of an ARM error
	Text          string // its words for people, on one line, bounded
	CorrelationID string // what its logs call the request
}

// Read reads the body of an error answer: the JSON of OAuth (error, error_description), of IMDS (message,
// correlationId) or of ARM (error.code, error.message), or the first line of a plain text. A byte order mark is
// skipped. Of HTML it shows nothing.
func Read(body []byte) Problem {
	body = WithoutBOM(body)
	var answer struct {
		Error         json.RawMessage `json:"error"`
		Description   json.RawMessage `json:"error_description"`
		Message       json.RawMessage `json:"message"`
		CorrelationID json.RawMessage `json:"correlationId"`
		Correlation   json.RawMessage `json:"correlation_id"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Problem{Text: firstLine(body)}
	}
	p := Problem{
		Code:          Words(text(answer.Error)),
		Text:          firstOf(Words(text(answer.Description)), Words(text(answer.Message))),
		CorrelationID: firstOf(Clean(text(answer.CorrelationID)), Clean(text(answer.Correlation))),
	}
	var nested struct {
		Code    json.RawMessage `json:"code"`
		Message json.RawMessage `json:"message"`
	}
	if json.Unmarshal(answer.Error, &nested) == nil {
		p.Code, p.Text = Words(text(nested.Code)), firstOf(Words(text(nested.Message)), p.Text)
	}
	return p
}

// Answered says in one line who answered, with which status, and what it said.
func Answered(who string, status int, code, text string) string {
	line := fmt.Sprintf("%s answered %d %s", who, status, http.StatusText(status))
	if code != "" {
		line += " " + code
	}
	if text != "" {
		line += ": " + text
	}
	return line
}

// firstLine returns the first line of a plain text that has something on it.
func firstLine(body []byte) string {
	const looked = 8 << 10
	start := strings.TrimSpace(string(body[:min(len(body), looked)]))
	if strings.HasPrefix(start, "<") || strings.HasPrefix(start, "{") || strings.HasPrefix(start, "[") {
		return "" // markup, or JSON that is none
	}
	line, _, _ := strings.Cut(start, "\n")
	return Words(line)
}

// text returns the value of a JSON string, empty for any other value.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// Words makes what a server says fit to be shown: as Clean does, and without the identifiers that it wrote into it.
// They are masked before the text is cut, which could leave most of one.
func Words(s string) string { return Clean(MaskIDs(s)) }

// Clean makes the text of a server fit to be shown: on one line, without control characters and what else does not
// print, at most MaxText characters.
func Clean(s string) string {
	var out strings.Builder
	shown, space := 0, false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = shown > 0
			continue
		case !unicode.IsPrint(r), r == unicode.ReplacementChar:
			continue
		}
		if space {
			out.WriteByte(' ')
			shown, space = shown+1, false
		}
		if shown >= MaxText {
			out.WriteRune('…')
			break
		}
		out.WriteRune(r)
		shown++
	}
	return out.String()
}

// WithoutBOM returns a body without the byte order mark that some servers put before their JSON.
func WithoutBOM(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\ufeff")) }

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
