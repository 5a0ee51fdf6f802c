package hostport_test

import (
	"testing"

	"github.com/azmtls/azmtls/internal/hostport"
	"github.com/stretchr/testify/require"
)

// One host has one canonical form, however a URL spells it, and two hosts never share one: a token is for one of them
// only.
func TestCanonical(t *testing.T) {
	for host, want := range map[string]string{
		"host":                    "host:443",
		"HOST.":                   "host:443",
		"host:":                   "host:443",
		"host:443":                "host:443",
		"host:0443":               "host:443",
		"host:8443":               "host:8443",
		"Host.:8443":              "host:8443",
		"host..":                  "host.:443",
		"sub.host":                "sub.host:443",
		"127.0.0.1":               "127.0.0.1:443",
		"[::1]":                   "[::1]:443",
		"[::1]:80":                "[::1]:80",
		"[0:0:0:0:0:0:0:1]:443":   "[::1]:443",
		"Bücher.example":          "xn--bcher-kva.example:443",
		"xn--bcher-kva.example.":  "xn--bcher-kva.example:443",
		"bücher.example.:8443":    "xn--bcher-kva.example:8443",
		"with_underscore.example": "with_underscore.example:443",
	} {
		require.Equal(t, want, hostport.Canonical(host), host)
	}
}

// What a user names is one host, with a port or without.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"my.vault.azure.net":      "my.vault.azure.net:443",
		"My.Vault.Azure.Net.:443": "my.vault.azure.net:443",
		"localhost:8443":          "localhost:8443",
		"127.0.0.1":               "127.0.0.1:443",
		"127.0.0.1:1":             "127.0.0.1:1",
		"[::1]:8443":              "[::1]:8443",
		"[::1]":                   "[::1]:443",
		"::1":                     "[::1]:443",
		"bücher.example":          "xn--bcher-kva.example:443",
		"a_b-1.example:65535":     "a_b-1.example:65535",
	} {
		got, err := hostport.Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", " ", ".", ":", ":443", "host:", "host:0", "host:65536", "host:https", "host:-1", "host:443:443", "https://host", "//host",
		"host/", "host/path", "host?query", "host?", "host#fragment", "host#", "user@host", "user:password@host", "@host", "host name",
		" host", "host ", "host\n", "*.vault.azure.net", "*", "host..", "a..b", ".host", "[::1", "::1]", "[]", "[host]", "host,other",
		"host%00", "host%2e", `ho"st`, "ho\\st", "host;", "<host>",
	} {
		got, err := hostport.Parse(text)
		require.Error(t, err, "%q: %s", text, got)
	}
}
