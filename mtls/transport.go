package mtls

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// Transport sends requests over mutual TLS with one binding, on a pool of connections that is the binding's own: a connection,
// and a resumed TLS session too, keeps the certificate it was opened with. It speaks HTTP/1.1, since a server that
// asks for the certificate late does so by a TLS 1.2 renegotiation, which HTTP/2 forbids (RFC 9113, section 9.2.1). It follows
// no redirect. It is a policy.Transporter and an http.RoundTripper, safe for concurrent use.
type Transport struct {
	binding      *Binding
	ordinary     lane
	late         lane // for hosts that ask for the certificate after the handshake
	hosts        hosts
	renegotiated atomic.Int64
}

// lane is the connections to hosts that are spoken to alike.
type lane struct {
	pooled *http.Transport
	fresh  *http.Transport // every request on a connection of its own
}

// NewTransport returns a Transport for the binding. The template is cloned: its proxy, dialer, timeouts and the trust in its
// TLSClientConfig apply. Nil stands for the defaults of net/http. See [CheckTemplate] for what it must not have.
func NewTransport(template *http.Transport, b *Binding) *Transport {
	t := &Transport{binding: b}
	newLane := func(highest uint16) lane {
		l := lane{pooled: t.specialize(Template(template)), fresh: t.specialize(Template(template))}
		l.fresh.DisableKeepAlives = true
		if highest != 0 {
			l.pooled.TLSClientConfig.MaxVersion, l.fresh.TLSClientConfig.MaxVersion = highest, highest
		}
		return l
	}
	t.ordinary, t.late = newLane(0), newLane(tls.VersionTLS12)
	return t
}

// Template returns a clone of the template, and the defaults for nil: those of net/http, with as many idle connections to one
// host as to all, since a service talks to few.
func Template(template *http.Transport) *http.Transport {
	if template != nil {
		return template.Clone()
	}
	defaults, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // somebody replaced it
		return &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	defaults = defaults.Clone()
	defaults.MaxIdleConnsPerHost = defaults.MaxIdleConns
	return defaults
}

// CheckTemplate reports why a template cannot serve mutual TLS, nil if it can.
func CheckTemplate(template *http.Transport) error {
	if template == nil {
		return nil
	}
	//lint:ignore SA1019 the deprecated dialer bypasses the binding's certificate as well
	if template.DialTLSContext != nil || template.DialTLS != nil {
		return errors.New("mtls: the template transport dials TLS itself (DialTLS, DialTLSContext), so the binding's certificate would never be presented; set DialContext instead")
	}
	config := template.TLSClientConfig
	if config == nil {
		return errors.New("mtls: the template transport has no TLSClientConfig; set one (an empty &tls.Config{} trusts the system's roots), or start from a Clone of http.DefaultTransport")
	}
	if config.MaxVersion != 0 && config.MaxVersion < tls.VersionTLS12 {
		return errors.New("mtls: the template transport allows no TLS 1.2 or later; raise TLSClientConfig.MaxVersion")
	}
	if len(config.Certificates) > 0 || config.GetClientCertificate != nil {
		return errors.New("mtls: the template transport has a client certificate of its own; the binding provides the certificate")
	}
	return nil
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
	config.ClientSessionCache = nil                      // a session of another binding resumes with that binding's certificate
	config.Renegotiation = tls.RenegotiateFreelyAsClient // one location of a server after the other may ask
	config.GetClientCertificate = t.present
	h.TLSClientConfig = config

	h.Protocols = new(http.Protocols)
	h.Protocols.SetHTTP1(true)
	h.ForceAttemptHTTP2 = false
	h.TLSNextProto = nil

	dial := h.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	h.DialContext = noting(dial)
	if h.TLSHandshakeTimeout == 0 {
		h.TLSHandshakeTimeout = handshakeLimit
	}
	if h.Proxy != nil {
		h.Proxy = plainProxy(h.Proxy)
	}
	return h
}

// plainProxy refuses proxies that are themselves reached over TLS: net/http would use one TLS configuration for proxy and
// server, and present the binding's certificate to the proxy.
func plainProxy(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		u, err := proxy(req)
		if err == nil && u != nil && u.Scheme == "https" {
			return nil, NonRetriable(fmt.Errorf("mtls: the proxy %s is reached over TLS, which would present the binding's certificate to it; use an http or socks5 proxy", u.Host))
		}
		return u, err
	}
}

// Do is [Transport.RoundTrip], for azcore pipelines.
func (t *Transport) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// RoundTrip sends the request. A failure that speaks of the binding is a *[BindingRejectedError]. A connection that was lost
// before the response began is no evidence yet: the request is repeated on a fresh connection with the same binding, if
// its body can be read again (GetBody), and the key is asked for one signature meanwhile. Every other error
// is returned as it is.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return nil, NonRetriable(fmt.Errorf("mtls: a binding is presented over https only, not to %s://%s", req.URL.Scheme, req.URL.Host))
	}
	lane := t.laneOf(req.URL.Host)
	transport := lane.pooled
	losses, early := 0, 0 // fresh connections lost after and before our certificate was sent
	for {
		resp, info, err := t.try(transport, req)
		if other := t.changeLane(lane, req.URL.Host, info, err); other != nil {
			again, ok := rewound(req)
			if !ok {
				return nil, err
			}
			req, lane, transport = again, other, other.pooled
			continue
		}
		if err != nil && !info.Reused && info.CertificateSent && isLoss(err) {
			losses++
			info.Losses = losses
		}
		switch failure := Classify(err, info); {
		case failure == None:
			return resp, nil
		case failure == BindingRejected:
			return nil, t.rejected(req, err)
		case failure == ServerUntrusted:
			return nil, NonRetriable(err)
		case failure != ConnectionLost:
			return nil, err
		case !info.Reused && !info.CertificateSent:
			if early++; early > 1 {
				return nil, err
			}
		case losses == 1 && !info.Reused:
			if dead := t.probe(); dead != nil {
				return nil, t.rejected(req, fmt.Errorf("%w, after %w", dead, err))
			}
		}
		again, ok := rewound(req)
		if !ok {
			return nil, fmt.Errorf("mtls: the connection to %s was lost and the request not repeated, as its body cannot be read again: %w", req.URL.Host, err)
		}
		Logf(EventRecovery, "connection to %s lost (reused %t, certificate sent %t), trying a fresh one with the same binding", req.URL.Host, info.Reused, info.CertificateSent)
		req, transport = again, lane.fresh
	}
}

// try sends the request once and gathers the facts of the attempt.
func (t *Transport) try(transport *http.Transport, req *http.Request) (*http.Response, AttemptInfo, error) {
	a := &attempt{endIfNotAsked: t.mayAskLate(req.URL.Host) && repeatable(req)}
	renegotiated := t.renegotiated.Load()
	resp, err := transport.RoundTrip(a.start(req))
	info := a.info()
	if t.renegotiated.Load() != renegotiated {
		info.CertificateSent = true
	}
	switch {
	case err == nil:
		return resp, info, nil
	case a.notAsked.Load():
		err = errNotAsked
	case req.Context().Err() != nil:
	case a.signerFailure() != nil:
		err = a.signerFailure()
	case !info.ResponseStarted:
		err = a.lastWords(err)
	}
	return nil, info, err
}

// probe asks the key for one signature.
func (t *Transport) probe() error {
	signer, ok := t.binding.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return &SignerError{Err: errors.New("the binding has no private key")}
	}
	digest := sha256.Sum256([]byte("azmtls liveness probe"))
	if _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		return &SignerError{Err: err}
	}
	return nil
}

func (t *Transport) rejected(req *http.Request, evidence error) error {
	return &BindingRejectedError{Binding: t.binding, Host: req.URL.Host, Err: evidence}
}

// repeatable reports whether the body of the request, if it has one, can be read again.
func repeatable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// rewound returns the request with its body at the start again, false if that cannot be had.
func rewound(req *http.Request) (*http.Request, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, true
	}
	if !repeatable(req) {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again := *req
	again.Body = body
	return &again, true
}

// Binding returns the binding that the transport presents.
func (t *Transport) Binding() *Binding { return t.binding }

// CloseIdleConnections closes the connections that serve no request now, and lets the others end with theirs.
func (t *Transport) CloseIdleConnections() {
	for _, l := range []lane{t.ordinary, t.late} {
		l.pooled.CloseIdleConnections()
		l.fresh.CloseIdleConnections()
	}
}

var _ interface {
	http.RoundTripper
	Do(*http.Request) (*http.Response, error)
	CloseIdleConnections()
} = (*Transport)(nil)
