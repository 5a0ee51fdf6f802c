package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sbom = `{"SBOM":{"go_version":"go1.26.8"}}`

// Only what is called counts: not what is merely imported or required.
func TestRead(t *testing.T) {
	called, err := read(strings.NewReader(sbom + `
{"finding":{"osv":"GO-1","fixed_version":"v1.2.4",
 "trace":[{"module":"m","version":"v1.2.3","package":"m/p","function":"F"},{"module":"own"}]}}
{"finding":{"osv":"GO-2","trace":[{"module":"m","version":"v1.2.3","package":"m/p"}]}}
{"finding":{"osv":"GO-3","trace":[{"module":"stdlib","version":"v1.26.8","function":"Read"}]}}`))
	require.NoError(t, err)
	require.Equal(t, map[string]found{"GO-1": {"m", "v1.2.3", "v1.2.4"}, "GO-3": {"stdlib", "v1.26.8", ""}}, called)
}

// A scan that did not happen is no clean one.
func TestReadNothing(t *testing.T) {
	for _, text := range []string{"", "{}", "go: error"} {
		_, err := read(strings.NewReader(text))
		require.Error(t, err)
	}
}
