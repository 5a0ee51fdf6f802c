package azmtls

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/azmtls/azmtls/internal/hostport"
)

// destinations are the hosts that a token may go to, in their canonical form. None: the one that the caller's request
// names.
type destinations []string

// newDestinations reads the hosts that the caller names.
func newDestinations(hosts []string) (destinations, error) {
	var d destinations
	for _, host := range hosts {
		canonical, err := hostport.Parse(host)
		if err != nil {
			return nil, fmt.Errorf("Client: the host %q is not one that a token can be sent to: %w", host, err)
		}
		d = append(d, canonical)
	}
	return d, nil
}

// check refuses a request that would carry the token away: over plain http, to a host that is not among those that were
// named, or, where none were, to one that only a redirect names.
func (d destinations) check(req *http.Request) error {
	if req.URL == nil || req.URL.Hostname() == "" {
		return errors.New("the request names no host")
	}
	what := "a request"
	if req.Response != nil {
		what = "a redirect"
	}
	host := hostport.Canonical(req.URL.Host)
	switch {
	case req.URL.Scheme != "https":
		return fmt.Errorf("%s to %s://%s is refused: a token is sent over https only", what, req.URL.Scheme, req.URL.Host)
	case len(d) > 0 && !slices.Contains(d, host):
		return fmt.Errorf("%s to %s is refused: the token is for %s", what, host, strings.Join(d, ", "))
	case len(d) == 0 && !isOfCaller(req):
		return fmt.Errorf("%s to %s is refused: the token is for the host that the request named; "+
			"if it is for both, name both to Client", what, host)
	}
	return nil
}

// isOfCaller reports whether the host is the one that the caller's request named, which redirects led away from.
func isOfCaller(req *http.Request) bool {
	first := req
	for first.Response != nil {
		if first = first.Response.Request; first == nil || first.URL == nil {
			return false // it is not known
		}
	}
	return sameOrigin(req.URL, first.URL)
}

// sameOrigin reports whether both URLs lead to the same host and port by the same scheme.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostport.Canonical(a.Host) == hostport.Canonical(b.Host)
}

// tokenHeaders are the headers in which Azure's clients send tokens.
var tokenHeaders = []string{"Authorization", "X-Ms-Authorization-Auxiliary"}

// leaveToken is the CheckRedirect of a client whose requests may carry a token. It stays behind when a redirect leads
// away from the host, and does not come back. net/http itself takes it along to another port, to a subdomain and from
// https to http, and leaves it behind where the same host is spelled otherwise.
func leaveToken(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 { // as net/http
		return errors.New("stopped after 10 redirects")
	}
	isAway := func(hop *http.Request) bool { return !sameOrigin(hop.URL, via[0].URL) }
	away := isAway(req) || slices.ContainsFunc(via, isAway)
	for _, name := range tokenHeaders {
		if value, sent := via[0].Header[name]; sent && !away {
			req.Header[name] = value
		} else {
			delete(req.Header, name)
		}
	}
	return nil
}

func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
