// Package hostport compares the hosts that URLs name: host[:port].
package hostport

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// Canonical returns host:port of the host of an https URL in the one spelling that hosts are compared in: the port is
// there, 443 if the URL has none, and the name is in lower case, without a trailing dot and, as net/http looks it up,
// in ASCII (IDNA).
func Canonical(host string) string {
	u := url.URL{Host: host}
	name, port := strings.TrimSuffix(u.Hostname(), "."), u.Port()
	if port == "" {
		port = "443"
	} else if number, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(number, 10)
	}
	if address, err := netip.ParseAddr(name); err == nil {
		return net.JoinHostPort(address.String(), port)
	}
	if ascii, err := toASCII(name); err == nil {
		name = ascii
	}
	return net.JoinHostPort(name, port)
}

// toASCII returns the name in ASCII and lower case. It is an error if IDNA has no ASCII for it, as for letters that may
// not be in a name.
func toASCII(name string) (string, error) {
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		ascii, err := idna.Lookup.ToASCII(name)
		return strings.ToLower(strings.TrimSuffix(ascii, ".")), err
	}
	return strings.ToLower(name), nil
}

// Parse returns the canonical form of a host that a user names: host[:port], 443 if there is no port.
func Parse(text string) (string, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Is6() {
		text = "[" + text + "]"
	}
	u, err := url.Parse("https://" + text)
	if err != nil || u.Host != text || u.Host == "" || strings.HasSuffix(text, ":") {
		return "", errors.New("it is not of the form host[:port]")
	}
	if port := u.Port(); port != "" {
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			return "", errors.New("its port is none")
		}
	}
	if !isName(u.Hostname()) {
		return "", errors.New("it is neither the name nor the address of one host")
	}
	return Canonical(text), nil
}

// isName reports whether this can be the name or the address of a host.
func isName(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	ascii, err := toASCII(strings.TrimSuffix(name, "."))
	return err == nil && !strings.ContainsFunc(name, isNoPartOfName) && !slices.Contains(strings.Split(ascii, "."), "")
}

func isNoPartOfName(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
}
