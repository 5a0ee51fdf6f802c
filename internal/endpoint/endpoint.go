// Package endpoint holds the addresses that a service or a store names to rules: a certificate is presented to what
// they name, or an attestation asked of it.
package endpoint

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// Check returns the endpoint as a URL without a trailing slash: https with a host, and neither userinfo, query nor
// fragment. A bare host counts as https, since the field has both forms. The error says what is wrong and does not
// repeat the endpoint.
func Check(endpoint string) (string, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", errors.New("is not a URL")
	case u.Scheme != "https":
		return "", errors.New("is not https")
	case u.User != nil:
		return "", errors.New("contains userinfo")
	case u.Hostname() == "" || strings.Contains(u.Host, "%") || !strings.Contains(endpoint, u.Host): // %-encoded
		return "", errors.New("names no host")
	case !hasPort(u):
		return "", errors.New("names no valid port after its colon")
	case u.RawQuery != "" || u.ForceQuery:
		return "", errors.New("has a query")
	case strings.Contains(endpoint, "#"):
		return "", errors.New("has a fragment")
	}
	return "https://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), nil
}

// hasPort reports whether the port, if there is a colon for one, can be one.
func hasPort(u *url.URL) bool {
	if strings.HasSuffix(u.Host, ":") {
		return false
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || (err == nil && port > 0)
}
