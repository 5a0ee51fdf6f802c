package azmtls_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/internal/troubleshooting"
	"github.com/stretchr/testify/require"
)

// TROUBLESHOOTING.md has a section for everything that errors and findings lead to, and no other. What its index
// quotes, errors say.
func TestTroubleshooting(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(text)
	}
	page := read("TROUBLESHOOTING.md")
	var sections []troubleshooting.Anchor
	for _, heading := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(page, -1) {
		sections = append(sections, troubleshooting.Anchor(strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")))
	}
	require.ElementsMatch(t, troubleshooting.Anchors, sections)
	for _, link := range regexp.MustCompile(`\]\(#([\w-]+)\)`).FindAllStringSubmatch(page, -1) {
		require.Contains(t, sections, troubleshooting.Anchor(link[1]))
	}

	said := read("docs/errors.md")
	code := read("advice.go") + read("mtls/evidence.go") + read("grants.go") + read("choice.go") + said
	_, index, _ := strings.Cut(page, "|---|---|\n")
	index, _, _ = strings.Cut(index, "\n\n")
	for line := range strings.Lines(index) {
		says, _, _ := strings.Cut(line[2:], " | ")
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(says, -1) {
			require.Contains(t, said, quoted[1])
		}
		for _, aadsts := range regexp.MustCompile(`AADSTS\d+`).FindAllString(says, -1) {
			require.Contains(t, code, aadsts)
		}
	}
}
