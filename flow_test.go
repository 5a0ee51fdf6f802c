package azmtls_test

import (
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's picture is what its text source says.
func TestFlow(t *testing.T) {
	source, err := os.ReadFile("docs/flow.txt")
	require.NoError(t, err)
	drawn := drawFlow(string(source))
	if *update {
		require.NoError(t, os.WriteFile("docs/flow.svg", []byte(drawn), 0o644))
	}
	want, err := os.ReadFile("docs/flow.svg")
	require.NoError(t, err)
	require.Equal(t, string(want), drawn, "docs/flow.svg is stale: run go test -run Flow . -update")
}

// drawFlow draws a sequence diagram.
func drawFlow(source string) string {
	const column, row, top, left = 225, 34, 60, 100
	var parties, rows []string
	for line := range strings.Lines(source) {
		line = strings.TrimSpace(line)
		if names, ok := strings.CutPrefix(line, "parties: "); ok {
			parties = strings.Split(names, " | ")
		} else if line != "" && !strings.HasPrefix(line, "#") {
			rows = append(rows, line)
		}
	}
	width, height := left*2+column*(len(parties)-1), top+row*len(rows)+20
	var b strings.Builder
	text := func(x, y int, attributes, s string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle"%s>`, x, y, attributes)
		_ = xml.EscapeText(&b, []byte(s))
		b.WriteString("</text>\n")
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" `+
		`aria-label="how a token is had">`+"\n", width, height)
	b.WriteString(`<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" ` +
		`orient="auto"><path d="M0 0L8 4L0 8z" fill="#0b6bcb"/></marker></defs>` + "\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#fbfcfe"/>`+"\n", width, height)
	b.WriteString(`<g font-family="system-ui,sans-serif" font-size="13" fill="#1f2933">` + "\n")
	for i, p := range parties {
		x := left + i*column
		fmt.Fprintf(&b, `<line x1="%d" y1="44" x2="%d" y2="%d" stroke="#c5d0db"/>`+"\n", x, x, height-12)
		fmt.Fprintf(&b, `<rect x="%d" y="14" width="140" height="30" rx="6" fill="#e3edf7"/>`+"\n", x-70)
		text(x, 34, ` font-weight="600"`, p)
	}
	for i, line := range rows {
		y := top + (i+1)*row - 6
		if note, ok := strings.CutPrefix(line, "- "); ok {
			fmt.Fprintf(&b, `<line x1="20" y1="%d" x2="%d" y2="%d" stroke="#c5d0db" stroke-dasharray="4 4"/>`+"\n",
				y, width-20, y)
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="220" height="20" fill="#fbfcfe"/>`+"\n", width/2-110, y-14)
			text(width/2, y+1, ` font-style="italic" fill="#66788a"`, note)
			continue
		}
		ends, what, _ := strings.Cut(line, ": ")
		from, to, _ := strings.Cut(ends, " > ")
		x1, x2 := left+slices.Index(parties, from)*column, left+slices.Index(parties, to)*column
		gap := 3
		if x2 < x1 {
			gap = -gap
		}
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#0b6bcb" stroke-width="1.5" `+
			`marker-end="url(#a)"/>`+"\n", x1+gap, y, x2-gap, y)
		text((x1+x2)/2, y-6, "", what)
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}
