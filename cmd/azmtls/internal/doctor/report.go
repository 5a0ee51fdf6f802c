// Package doctor looks at all that a token depends on, and says what it found. It holds no terminal code.
package doctor

import (
	"time"

	see "github.com/azmtls/azmtls/internal/troubleshooting"
)

// State is how well it is with what was looked at.
type State string

const (
	// OK: as it should be.
	OK State = "ok"
	// Note: tokens can be had, but something is less than it could be.
	Note State = "note"
	// Problem: tokens cannot be had over mutual TLS, or will not much longer.
	Problem State = "problem"
	// Skipped: it could not be looked at, since something before it failed.
	Skipped State = "skipped"
)

// Finding is what one look found.
type Finding struct {
	// ID names what was looked at, for programs. It does not change between versions.
	ID string `json:"id"`
	// What names it for people.
	What  string `json:"what"`
	State State  `json:"state"`
	// Summary says in a line what was found, Details what else there is to say.
	Summary string   `json:"summary"`
	Details []string `json:"details,omitempty"`
	// Advice says what to do next, and See where to read more: a page of the project, with an anchor.
	Advice string `json:"advice,omitempty"`
	See    string `json:"see,omitempty"`
	// Seconds is how long the look took.
	Seconds float64 `json:"seconds"`
}

// Report is what the doctor found, in the order in which a token needs it.
type Report struct {
	// Version is that of this form, 1.
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	// Machine says what was looked at, and Platform its system and architecture.
	Machine  string `json:"machine"`
	Platform string `json:"platform"`
	// Healthy says that there is no problem.
	Healthy  bool      `json:"healthy"`
	Findings []Finding `json:"findings"`
}

// advise adds what to do next.
func (f Finding) advise(more see.Anchor, advice string) Finding {
	f.Advice, f.See = advice, more.URL()
	return f
}
