package endpoint_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/internal/endpoint"
	"github.com/stretchr/testify/require"
)

// What IMDS and a store name is where the certificate goes: both forms of the field are taken, and nothing that leads
// elsewhere.
func TestCheck(t *testing.T) {
	for given, want := range map[string]string{
		"https://mtlsauth.microsoft.com":            "https://mtlsauth.microsoft.com",
		"https://mtlsauth.microsoft.com/":           "https://mtlsauth.microsoft.com",
		"HTTPS://mtlsauth.microsoft.com:443///":     "https://mtlsauth.microsoft.com:443",
		"mtlsauth.microsoft.com":                    "https://mtlsauth.microsoft.com",
		"mtlsauth.microsoft.com:8443/":              "https://mtlsauth.microsoft.com:8443",
		"westus.mtlsauth.microsoft.com/common/path": "https://westus.mtlsauth.microsoft.com/common/path",
		"https://host:1":                            "https://host:1",
		"https://host:65535":                        "https://host:65535",
		"https://[::1]:8443":                        "https://[::1]:8443",
	} {
		got, err := endpoint.Check(given)
		require.NoError(t, err, given)
		require.Equal(t, want, got)
	}
	for given, want := range map[string]string{
		"":                             "names no host",
		"https://":                     "names no host",
		"https:///path":                "names no host",
		"//host":                       "names no host",
		"http://host":                  "is not https",
		"ftp://host":                   "is not https",
		"https://host:":                "names no valid port",
		"host:":                        "names no valid port",
		"https://[::1]:":               "names no valid port",
		"https://host:0":               "names no valid port",
		"https://host:65536":           "names no valid port",
		"https://host:131071":          "names no valid port",
		"https://:443":                 "names no host",
		"https://[fe80::1%25eth0]":     "names no host",
		"https://user@host":            "contains userinfo",
		"https://user:password@host":   "contains userinfo",
		"https://host?q=1":             "has a query",
		"host?":                        "has a query",
		"https://host#":                "has a fragment",
		"https://host/path#f":          "has a fragment",
		"https://host\r\nX: y":         "is not a URL",
		"https://ho st":                "is not a URL",
		"https:host":                   "is not a URL",
		"https://%80":                  "names no host",
		"javascript:alert(1)":          "is not a URL",
		`https://good.example\@evil/a`: "is not a URL",
	} {
		_, err := endpoint.Check(given)
		require.ErrorContains(t, err, want, given)
	}
}

// Whatever is taken is https, has a host, and stays as it is when it is checked again and when a path is put behind it.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"https://h", "h", "https://h#", "h:", "https://u@h", "https://h/%2f?", "https://[::1%25eth0]", "h\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		got, err := endpoint.Check(given)
		if err != nil {
			return
		}
		again, err := endpoint.Check(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
		u, err := url.Parse(got + "/tenant/oauth2/v2.0/token")
		require.NoError(t, err)
		require.Equal(t, "https", u.Scheme)
		require.NotEmpty(t, u.Hostname())
		require.Contains(t, given, u.Host, "no host that was not named")
		require.Nil(t, u.User)
		require.True(t, strings.HasSuffix(u.EscapedPath(), "/tenant/oauth2/v2.0/token"))
	})
}
