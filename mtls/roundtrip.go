package mtls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/limits"
)

// roundTrip is one request on its way, with as many attempts as it takes.
type roundTrip struct {
	*Transport
	upload upload
	host   *host
	first  attempt // mostly the only one

	freshLosses int // attempts that a fresh connection lost
	lanes       int // how often the lane was changed
}

// errEvicted is the evidence against a binding that another request found refused.
var errEvicted = errors.New("it was evicted meanwhile")

func (r *roundTrip) do() (*http.Response, error) {
	transport := r.laneOf(r.host).pooled
	var lost error // what the attempt before ended with
	for {
		req, err := r.upload.next()
		if err != nil {
			return nil, r.fail(
				fmt.Errorf("mtls: the request to %s was not repeated, as %w: %w", r.upload.req.URL.Host, err, lost),
			)
		}
		resp, f, changed := r.try(transport, req)
		if changed && r.lanes < 2 {
			r.lanes++
			lost, transport = f.err, r.laneOf(r.host).pooled
			continue
		}
		switch v := r.judge(f); {
		case v.refuses():
			return nil, r.refuse(f, v, resp)
		case f.err == nil:
			if f.sent {
				r.host.accept(r.clock())
				r.binding.markAccepted()
			}
			r.upload.answered(resp)
			return resp, nil
		case (v == onceMore || v == lossUnconfirmed) && r.mayRepeat(f):
			eventlog.Emit(req.Context(), eventlog.Event{
				Step: eventlog.ConnectionLost, Host: req.URL.Host, Thumbprint: r.binding.Thumbprint(), Err: f.err,
				Detail: fmt.Sprintf("reused %t, certificate sent %t", f.reused, f.sent),
			})
			if v == lossUnconfirmed {
				if err := r.clock().Wait(req.Context(), confirmAfter+rand.N(100*time.Millisecond)); err != nil {
					return nil, r.fail(errors.Join(err, f.err))
				}
			}
			lost, transport = f.err, r.laneOf(r.host).fresh
		default:
			return nil, r.fail(f.outcome())
		}
	}
}

// try sends the request once and gathers the facts. It reports whether they show that the host belongs in the other
// lane, and the request is to go there.
func (r *roundTrip) try(transport *http.Transport, req *http.Request) (resp *http.Response, f *facts, changed bool) {
	if r.binding.Evicted() {
		return nil, &facts{evicted: true, err: errEvicted}, false
	}
	a := &r.first
	if a.upload != nil {
		a = &attempt{}
	}
	a.late, a.upload = r.late.has(transport), &r.upload
	a.endIfNotAsked = !a.late && r.mayAskLate(r.host)
	resp, err := transport.RoundTrip(a.start(req))
	if r.binding.Evicted() {
		r.CloseIdleConnections() // nobody else will close what net/http may have opened since the eviction
	}
	f = a.finish(err)
	f.token = r.host.token
	if err == nil {
		f.read(req, resp)
	}
	return resp, f, r.changeLane(a, f)
}

// judge asks the table of evidence, and finds out what it wants to know.
func (r *roundTrip) judge(f *facts) verdict {
	now := r.clock().Boot()
	f.known = f.err != nil && r.host.knows(now) // an answer speaks for itself
	for {
		switch v := judge(f); v {
		case askKey:
			f.probed, f.dead = true, r.probe()
		case askHost:
			f.looked, f.confirmed = true, r.host.lose(now)
		case askMetadata:
			f.asked, f.another = true, r.binding.disowned(r.upload.req.Context())
		default:
			return v
		}
	}
}

// probe asks the key for one signature and returns why it is dead, nil if it is not.
func (r *roundTrip) probe() error {
	ctx, cancel := r.clock().WithTimeout(r.upload.req.Context(), limits.Key)
	defer cancel()
	if err := r.binding.sign(ctx); err != nil && ctx.Err() == nil && !isNotNow(err) {
		return err
	}
	return nil
}

// mayRepeat counts an attempt that a fresh connection lost and reports whether the request may be sent once more. Those
// of reused connections need no count: what follows one has a connection of its own.
func (r *roundTrip) mayRepeat(f *facts) bool {
	if !f.reused {
		r.freshLosses++
	}
	return r.freshLosses <= 1 && r.repeatable(f)
}

// repeatable reports that sending the request again does no harm: by its nature, or since the peer did not process it.
func (r *roundTrip) repeatable(f *facts) bool {
	if r.host.token || f.handshake || !f.written {
		return true
	}
	req := r.upload.req
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != "" || req.Header.Get("X-Idempotency-Key") != ""
}

// refuse returns the Refusal that the facts amount to.
func (r *roundTrip) refuse(f *facts, v verdict, resp *http.Response) error {
	refusal := &Refusal{Binding: r.binding, Host: r.upload.req.URL.Host, Err: f.err, verdict: v}
	switch {
	case v == disowned:
		refusal.Err = fmt.Errorf("%w; %w", errDisowned, f.evidence(resp))
	case resp != nil:
		refusal.Err = f.evidence(resp)
	case v == keyDead && f.signing == nil:
		refusal.Err = fmt.Errorf("%w, after %w", &signError{f.dead}, f.err)
	case v == keyDead:
		refusal.Err = f.signing
	}
	free := r.upload.fail()
	// That the key was found dead after a loss does not say that the peer did not process the request.
	refusal.Final = !free || ((v == lossConfirmed || v == keyDead) && !r.repeatable(f))
	if refusal.Final && free {
		return retriable{refusal}
	}
	return refusal
}

// fail ends the request. An error that the caller could answer by sending it again must not be answered so while its
// body is still being read.
func (r *roundTrip) fail(err error) error {
	if !r.upload.fail() {
		return failure.NonRetriable(err)
	}
	return err
}

// outcome returns the error of an attempt that says nothing of the binding.
func (f *facts) outcome() error {
	switch {
	case failure.Is[*callers.Error](f.callers):
		return f.callers
	case f.signing != nil:
		return f.signing // of which crypto/tls keeps only the text in TLS 1.3
	case failure.Is[*tls.CertificateVerificationError](f.err), errors.Is(f.err, errRenegotiations):
		return failure.NonRetriable(f.err)
	}
	return f.err
}
