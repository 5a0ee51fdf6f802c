package azmtls_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every line of SECURITY.md that says what is defended against names tests, and they are there.
func TestThreatModelNamesItsTests(t *testing.T) {
	page, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	_, defended, found := strings.Cut(string(page), "| threat | what stands against it | tests |\n|---|---|---|\n")
	require.True(t, found)
	table, _, _ := strings.Cut(defended, "\n\n")
	named := regexp.MustCompile("\\[`(\\w+)`\\]\\(([^)]+)\\)")
	for line := range strings.Lines(table) {
		tests := named.FindAllStringSubmatch(line, -1)
		require.NotEmpty(t, tests, line)
		for _, test := range tests {
			source, err := os.ReadFile(test[2])
			require.NoError(t, err, line)
			require.Contains(t, string(source), "\nfunc "+test[1]+"(", test[2])
		}
	}
}
