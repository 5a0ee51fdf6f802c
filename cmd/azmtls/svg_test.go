package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const picture = "../../docs/azmtls.svg"

// TestPicture: the picture of a session in the README is what the commands write today. -update draws it anew.
func TestPicture(t *testing.T) {
	var session strings.Builder
	for _, args := range []string{
		"token --simulate --type pop --fault certificate-refused", "doctor --simulate --fault certificate-refused",
	} {
		out, _, code := command(t, nil, append(strings.Fields(args), "--color", "always")...)
		require.Equal(t, exitOK, code)
		session.WriteString("\x1b[1m$ azmtls " + args + "\x1b[0m\n" + lifelike.Replace(steady(out)) + "\n")
	}
	drawn := draw(session.String())
	if *update {
		require.NoError(t, os.WriteFile(picture, []byte(drawn), 0o644))
	}
	want, err := os.ReadFile(picture)
	require.NoError(t, err)
	require.Equal(t, string(want), drawn)
}

// lifelike puts something in the place of what varies.
var lifelike = strings.NewReplacer(
	"in SOME TIME", "in 1h0m0s", "SOME TIME", "41ms", "TIME", "2026-12-01 09:30:00 UTC", "DATE", "2027-12-01",
	"PORT", "38211", "MASKED…", "nRIVwN…", "SYSTEM", "linux/amd64",
)

// draw draws what a terminal shows.
func draw(session string) string {
	const lineHeight, charWidth, margin = 17, 7.8, 16
	lines := strings.Split(strings.TrimRight(session, "\n"), "\n")
	widest := 0
	for _, line := range lines {
		widest = max(widest, utf8.RuneCountInString(escapes.ReplaceAllString(line, "")))
	}
	var b strings.Builder
	width, height := int(float64(widest)*charWidth)+2*margin, len(lines)*lineHeight+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" `+
		`aria-label="azmtls at work">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#1e1e2e"/>`+"\n", width, height)
	b.WriteString(`<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="13" fill="#cdd6f4" ` +
		`xml:space="preserve">` + "\n")
	for i, line := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", margin, margin+(i+1)*lineHeight-4, spans(line))
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

var escapes = regexp.MustCompile("\x1b\\[(\\d+)m")

var fills = map[string]string{"31": "#f38ba8", "32": "#a6e3a1", "33": "#f9e2af", "90": "#7f849c"}

// spans turns the colours of a line into those of the picture.
func spans(line string) string {
	var b strings.Builder
	at, style := 0, ""
	write := func(text string) {
		if text == "" {
			return
		}
		fmt.Fprintf(&b, "<tspan%s>", style)
		_ = xml.EscapeText(&b, []byte(text))
		b.WriteString("</tspan>")
	}
	for _, found := range escapes.FindAllStringSubmatchIndex(line, -1) {
		write(line[at:found[0]])
		at = found[1]
		switch code := line[found[2]:found[3]]; code {
		case "0":
			style = ""
		case "1":
			style = ` font-weight="bold"`
		default:
			style = fmt.Sprintf(` fill="%s"`, fills[code])
		}
	}
	write(line[at:])
	return b.String()
}
