package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/simulate"
	"github.com/stretchr/testify/require"
)

// The README's faults can be read, its commands and flags are there.
func TestReadme(t *testing.T) {
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "```json\n")
	require.True(t, found)
	block, _, _ := strings.Cut(rest, "```")
	faults, err := simulate.ReadFaults(strings.NewReader(block))
	require.NoError(t, err)
	require.Len(t, faults, 7)

	root := newRootCommand()
	for _, named := range regexp.MustCompile("`azmtls (\\w+)`").FindAllStringSubmatch(string(page), -1) {
		if named[1] == "completion" { // cobra adds it when it runs
			continue
		}
		cmd, _, err := root.Find([]string{named[1]})
		require.NoError(t, err)
		require.Equal(t, named[1], cmd.Name())
	}
	for _, c := range root.Commands() {
		require.Contains(t, string(page), "`azmtls "+c.Name()+"`")
	}
	help := ""
	for _, name := range []string{"doctor", "token", "list", "purge", "simulate"} {
		out, _, _ := command(t, nil, name, "--help")
		help += out
	}
	for _, named := range regexp.MustCompile("[` ](--[a-z-]+)").FindAllStringSubmatch(string(page), -1) {
		require.Contains(t, help, named[1])
	}
}
