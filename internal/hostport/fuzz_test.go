package hostport_test

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/internal/hostport"
	"github.com/stretchr/testify/require"
)

// What a user names is one host, in one spelling; a URL to it leads there and nowhere else; and of two hosts that
// compare as equal each leads to where the other does.
func FuzzParse(f *testing.F) {
	f.Add("my.vault.azure.net", "MY.vault.azure.net.:443")
	f.Fuzz(func(t *testing.T, named, other string) {
		canonical, err := hostport.Parse(named)
		if err != nil {
			return
		}
		require.Equal(t, canonical, hostport.Canonical(canonical))
		again, err := hostport.Parse(canonical)
		require.NoError(t, err)
		require.Equal(t, canonical, again)
		host, port, err := net.SplitHostPort(canonical)
		require.NoError(t, err)
		require.NotEmpty(t, host)
		u, err := url.Parse("https://" + canonical + "/path")
		require.NoError(t, err)
		require.Equal(t, host, u.Hostname())
		require.Equal(t, port, u.Port())
		require.Equal(t, "/path", u.Path)
		require.Nil(t, u.User)
		if same, err := hostport.Parse(other); err == nil && hostport.Canonical(other) == canonical {
			require.Equal(t, canonical, same)
		}
		require.False(t, strings.ContainsAny(canonical, "/?#@\\ \r\n"))
	})
}
