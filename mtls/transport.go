package mtls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/hostport"
	"github.com/azmtls/azmtls/internal/template"
)

// Transport sends requests over mutual TLS with one binding, on a pool of connections that is the binding's own: a
// connection, and a resumed TLS session too, keeps the certificate it was opened with. It speaks HTTP/1.1, since a
// server that asks for the certificate late does so by a TLS 1.2 renegotiation, which HTTP/2 forbids (RFC 9113, section
// 9.2.1). It follows no redirect. It is a policy.Transporter and an http.RoundTripper, safe for concurrent use.
type Transport struct {
	binding  *Binding
	endpoint string // the host of the token endpoint
	useless  error  // why the transport cannot work
	ordinary lane
	late     lane // for hosts that ask for the certificate after the handshake
	hosts    hosts
}

// NewTransport returns a Transport for the binding. The template is cloned: its proxy, dialer, timeouts and the trust
// in its TLSClientConfig apply. Nil stands for the defaults of net/http. A template that dials TLS itself, or has a
// client certificate of its own, cannot serve: every request then fails with the reason.
func NewTransport(h *http.Transport, b *Binding) *Transport {
	t := &Transport{binding: b, useless: template.Check(h)}
	if b == nil || b.der() == nil {
		t.binding, t.useless = &Binding{}, errors.New("there is no binding to present")
	}
	t.endpoint = t.binding.tokenHost()
	newLane := func(highest uint16) lane {
		l := lane{pooled: t.specialize(template.Clone(h)), fresh: t.specialize(template.Clone(h))}
		l.fresh.DisableKeepAlives = true
		if highest != 0 {
			l.pooled.TLSClientConfig.MaxVersion, l.fresh.TLSClientConfig.MaxVersion = highest, highest
		}
		return l
	}
	t.ordinary, t.late = newLane(0), newLane(tls.VersionTLS12)
	return t
}

const handshakeLimit = 10 * time.Second // as in http.DefaultTransport

// specialize makes a clone of the template into a transport for the binding.
func (t *Transport) specialize(h *http.Transport) *http.Transport {
	config := h.TLSClientConfig // already a clone
	if config == nil {
		config = &tls.Config{}
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if !t.binding.signsPSS() {
		config.MaxVersion = tls.VersionTLS12
	}
	config.NextProtos = []string{"http/1.1"}
	config.ClientSessionCache = nil                      // another binding's session resumes with its certificate
	config.Renegotiation = tls.RenegotiateFreelyAsClient // one location of a server after the other may ask
	config.GetClientCertificate = t.present
	h.TLSClientConfig = config

	h.Protocols = new(http.Protocols)
	h.Protocols.SetHTTP1(true)
	h.ForceAttemptHTTP2 = false
	h.TLSNextProto = nil

	if h.DialContext == nil {
		h.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	if h.TLSHandshakeTimeout == 0 {
		h.TLSHandshakeTimeout = handshakeLimit
	}
	callers.GuardTransport(h)
	guardProxies(h)
	h.DialContext = noting(h.DialContext)
	return h
}

// Do is [Transport.RoundTrip], for azcore pipelines.
func (t *Transport) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// RoundTrip sends the request. A failure that speaks of the binding is a *[Refusal]; every other error is returned as
// it is.
//
// A connection that was lost is no evidence yet. A request that may be repeated is sent once more on a fresh
// connection, after a moment, which confirms the loss or gets the answer; any other is returned with its loss, and its
// next attempt confirms. A request may be repeated if it is one for a token or GET, HEAD, OPTIONS, TRACE, PUT or
// DELETE, or has an Idempotency-Key, or if nothing of it was sent; and if its body can be read again (GetBody).
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	r := &roundTrip{Transport: t, upload: upload{req: req}}
	if t.useless != nil {
		return nil, r.fail(failure.NonRetriable(fmt.Errorf("mtls: %w", t.useless)))
	}
	if req.URL == nil || req.URL.Scheme != "https" {
		return nil, r.fail(
			failure.NonRetriable(
				fmt.Errorf("mtls: a binding is presented over https only, not to %s", origin(req.URL)),
			),
		)
	}
	r.host = t.hostOf(req.URL.Host)
	return r.do()
}

// hostOf returns what is remembered of a host, as requests spell it.
func (t *Transport) hostOf(name string) *host {
	if h := t.hosts.find(name); h != nil {
		return h
	}
	return t.hosts.add(name, hostport.Canonical(name) == t.endpoint, t.clock().Boot())
}

func origin(u *url.URL) string {
	if u == nil {
		return "a request without a URL"
	}
	return u.Scheme + "://" + u.Host
}

func (t *Transport) clock() *clock.Clock { return t.binding.clock() }

// Binding returns the binding that the transport presents.
func (t *Transport) Binding() *Binding { return t.binding }

// CloseIdleConnections closes the connections that serve no request now, and lets the others end with theirs.
func (t *Transport) CloseIdleConnections() {
	t.ordinary.closeIdle()
	t.late.closeIdle()
}

var _ interface {
	http.RoundTripper
	Do(*http.Request) (*http.Response, error)
	CloseIdleConnections()
} = (*Transport)(nil)
