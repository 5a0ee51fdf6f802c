// Package template is about the http.Transport that connections are made like.
package template

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"
)

// idleLimit is how long a connection may be idle where the template sets no limit, as in http.DefaultTransport: a
// credential that nobody closes leaves none behind.
const idleLimit = 90 * time.Second

// Clone returns a clone of the template, and the defaults for nil: those of net/http, with as many idle connections to
// one host as to all, since a service talks to few. A http.DefaultTransport that was wrapped cannot be cloned: its
// limits still apply.
func Clone(t *http.Transport) *http.Transport {
	if t != nil {
		clone := t.Clone()
		if clone.IdleConnTimeout == 0 {
			clone.IdleConnTimeout = idleLimit
		}
		return clone
	}
	defaults := netHTTP()
	if current, ok := http.DefaultTransport.(*http.Transport); ok {
		defaults = current.Clone()
	}
	defaults.MaxIdleConnsPerHost = defaults.MaxIdleConns
	return defaults
}

// netHTTP returns what http.DefaultTransport is unless somebody replaced or wrapped it (Go 1.26,
// net/http/transport.go).
func netHTTP() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		IdleConnTimeout:       idleLimit,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// Check returns why a template cannot serve mutual TLS, nil if it can.
func Check(t *http.Transport) error {
	if t == nil {
		return nil
	}
	//lint:ignore SA1019 the deprecated dialer bypasses the binding's certificate as well
	if t.DialTLSContext != nil || t.DialTLS != nil {
		return errors.New(
			"the template transport dials TLS itself (DialTLS, DialTLSContext), so the binding's certificate would never " +
				"be presented; set DialContext instead",
		)
	}
	config := t.TLSClientConfig
	if config == nil {
		return errors.New(
			"the template transport has no TLSClientConfig; set one (an empty &tls.Config{} trusts the system's roots), " +
				"or start from a Clone of http.DefaultTransport",
		)
	}
	if config.MaxVersion != 0 && config.MaxVersion < tls.VersionTLS12 {
		return errors.New("the template transport allows no TLS 1.2 or later; raise TLSClientConfig.MaxVersion")
	}
	if len(config.Certificates) > 0 || config.GetClientCertificate != nil {
		return errors.New(
			"the template transport has a client certificate of its own; the binding provides the certificate",
		)
	}
	return nil
}
