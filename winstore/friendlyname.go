package winstore

import (
	"errors"
	"strings"
)

// A friendly name is how MSAL.NET marks its certificates (MsiCertificateFriendlyNameEncoder):
// MSAL|alias=<alias>|ep=<endpoint>. Values are not escaped. A reader ignores keys that it does not know, and the last
// of several equal keys counts.
const (
	namePrefix  = "MSAL|"
	aliasKey    = "alias"
	endpointKey = "ep"
)

// encodeName returns the friendly name of an alias's certificate.
func encodeName(alias, endpoint string) (string, error) {
	alias, endpoint = strings.TrimSpace(alias), strings.TrimSpace(endpoint)
	switch {
	case alias == "" || endpoint == "":
		return "", errors.New("winstore: a stored binding needs an alias and an endpoint")
	case strings.ContainsAny(alias, "|\r\n\x00") || strings.ContainsAny(endpoint, "|\r\n\x00"):
		return "", errors.New("winstore: alias and endpoint of a stored binding must not contain '|', CR, LF or NUL")
	}
	return namePrefix + aliasKey + "=" + alias + "|" + endpointKey + "=" + endpoint, nil
}

// decodeName reads a friendly name, false if it is none of MSAL's.
func decodeName(name string) (alias, endpoint string, ok bool) {
	pairs, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return "", "", false
	}
	for pair := range strings.SplitSeq(pairs, "|") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		switch strings.TrimSpace(key) {
		case aliasKey:
			alias = strings.TrimSpace(value)
		case endpointKey:
			endpoint = strings.TrimSpace(value)
		}
	}
	return alias, endpoint, alias != "" && endpoint != ""
}
