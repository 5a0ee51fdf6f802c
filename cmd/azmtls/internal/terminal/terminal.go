// Package terminal writes for people: tables, colour where there is a terminal that wants it, and progress.
package terminal

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Writer writes to a terminal or to what stands in for one.
type Writer struct {
	io.Writer
	colored bool
}

// New returns a Writer. Color is always, never, or auto: colour on a terminal, unless NO_COLOR is set
// (https://no-color.org) or TERM is dumb.
func New(w io.Writer, color string) (*Writer, error) {
	switch color {
	case "always":
		return &Writer{w, true}, nil
	case "never":
		return &Writer{w, false}, nil
	case "auto", "":
		return &Writer{w, IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}, nil
	}
	return nil, fmt.Errorf("--color is auto, always or never, not %q", color)
}

// IsTerminal reports whether somebody sits before it. It is for readers and writers.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Color is a colour of the 16 that every terminal has (ECMA-48, SGR).
type Color string

// The colours.
const (
	Green  Color = "32"
	Yellow Color = "33"
	Red    Color = "31"
	Gray   Color = "90"
	Bold   Color = "1"
)

// Paint returns the text in a colour, or as it is where there is none.
func (w *Writer) Paint(c Color, text string) string {
	if !w.colored || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Printf writes formatted text. That it cannot be written is for who reads it to notice.
func (w *Writer) Printf(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// Progress says what is being done, in a line that the next one replaces. It writes on terminals only.
type Progress struct{ w io.Writer }

// NewProgress returns a Progress, on what is usually standard error.
func NewProgress(w io.Writer) *Progress {
	if !IsTerminal(w) {
		return &Progress{}
	}
	return &Progress{w}
}

// Say replaces the line.
func (p *Progress) Say(what string) {
	if p.w != nil {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s …", what)
	}
}

// Done takes the line away.
func (p *Progress) Done() {
	if p.w != nil {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
}
