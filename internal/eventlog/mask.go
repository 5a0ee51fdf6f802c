package eventlog

import (
	"strings"

	"github.com/azmtls/azmtls/internal/problem"
)

// Mask shortens an alias, identifier or thumbprint so that log lines can be told apart without disclosing it. What is
// masked already stays as it is.
func Mask(s string) string {
	const shown = 6
	id, suffix := s, ""
	if i := strings.LastIndex(s, "#att="); i >= 0 {
		id, suffix = s[:i], s[i:]
	}
	if runes := []rune(id); len(runes) > shown {
		id = string(runes[:shown]) + "…"
	}
	return id + suffix
}

// Clean marks an error whose text is masked already, or for the caller as it is: [Emit] leaves it alone.
func Clean(err error) error { return clean{err} }

type clean struct{ error }

// maskErr returns an error that says the same with identifiers masked, and unwraps to what it was.
func maskErr(err error) error {
	switch err := err.(type) {
	case nil:
		return nil
	case clean:
		return err.error
	default:
		return masked{err}
	}
}

type masked struct{ error }

func (e masked) Error() string { return problem.MaskIDs(e.error.Error()) }
func (e masked) Unwrap() error { return e.error }
