package azmtls

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/counter"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
)

// Status is what a credential says of itself. Its JSON is for people and dashboards.
type Status struct {
	// Status is that of the binding and its budgets, which credentials for the same identity share.
	mtls.Status
	// LastError is the latest failure, nil if there was none. A later success does not clear it: see its Time.
	LastError *ErrorStatus `json:"last_error"`
	// Bearer are the resources that get bearer tokens for now where bound ones are wanted, since Entra binds none for
	// them.
	Bearer []BearerStatus `json:"bearer,omitempty"`
	// Fallback is why azidentity serves a [ManagedIdentityCredential], nil while IMDS v2 does.
	Fallback *FallbackStatus `json:"fallback,omitempty"`
	// Counters count since the credential was made.
	Counters Counters `json:"counters"`
}

// ErrorStatus is a failure: of a token, or of work in the background.
type ErrorStatus struct {
	// Time is when it came about.
	Time time.Time `json:"time"`
	// Step says what failed, Stage where.
	Step  Step  `json:"step"`
	Stage Stage `json:"stage,omitempty"`
	// Message is the text of the error. Identifiers in it are masked.
	Message string `json:"message"`
	// AADSTS is Entra's code, empty if there is none.
	AADSTS string `json:"aadsts,omitempty"`
}

// BearerStatus is one resource that gets bearer tokens.
type BearerStatus struct {
	// Resource is empty where that holds for all resources of the tenant.
	Resource string `json:"resource,omitempty"`
	// Until is when a bound token is asked for again.
	Until time.Time `json:"until"`
}

// FallbackStatus is why azidentity serves instead of IMDS v2.
type FallbackStatus struct {
	// Cause is the text of IMDS v2's latest failure, or says which source of tokens the environment names.
	Cause string `json:"cause"`
	// Since is when it began, and Next when IMDS v2 is asked again, by a call. Both are zero where the environment
	// names a source.
	Since time.Time `json:"since,omitzero"`
	Next  time.Time `json:"next,omitzero"`
}

// Counters count what a credential did. What credentials for the same identity share is counted by the one whose call
// began it.
type Counters struct {
	// CachedAnswers are the tokens that were given out from memory.
	CachedAnswers uint64 `json:"cached_answers"`
	// Tokens are those that Entra issued, Refreshes the ones among them that replaced one in the background.
	Tokens    uint64 `json:"tokens"`
	Refreshes uint64 `json:"refreshes"`
	// Mints are the bindings that IMDS issued, renewals included; Loads those that came from the store.
	Mints uint64 `json:"mints"`
	Loads uint64 `json:"loads"`
	// Evictions are the bindings that were evicted, Recoveries the requests that were sent once more with another one.
	Evictions  uint64 `json:"evictions"`
	Recoveries uint64 `json:"recoveries"`
}

// Status says which binding is in use, what went wrong last, what is left of the budgets, and what was done so far.
// It makes no call and waits for nothing.
func (c *ImdsV2MtlsCredential) Status() Status {
	if !c.made() {
		return Status{}
	}
	return Status{
		Status:    c.bindings.cache.Status(c.bindings.source),
		LastError: c.record.lastError(),
		Bearer:    c.grants.status(),
		Counters:  c.record.counters(),
	}
}

// Renew mints a new binding now, by a certificate that IMDS has not issued before, and puts it in the place of the
// one in use when that worked. Tokens and connections that are bound to the old one serve on until they end. It costs
// a unit of the budget that also evictions and their mints draw on; without one the error says until when, and
// nothing changes.
//
// Credentials that share a binding share the renewal. Errors are those of [ImdsV2MtlsCredential.GetToken].
func (c *ImdsV2MtlsCredential) Renew(ctx context.Context) (err error) {
	if err := c.callable(ctx); err != nil {
		return inputError(err)
	}
	id := uuid.NewString()
	ctx, end := c.tracing.start(correlation.With(eventlog.Observe(ctx, c.record.observer), id), "Renew")
	defer func() { end(err) }()
	if err := c.bindings.renew(ctx); err != nil {
		return explain(err, &exchange{correlationID: id}, c.demanding)
	}
	return nil
}

// record is what is remembered of the steps of a credential.
type record struct {
	observer *eventlog.Observer
	cached   counter.Counter

	tokens, refreshes, mints, loads, evictions, recoveries atomic.Uint64

	mu   sync.Mutex
	last *ErrorStatus
}

func newRecord(c *clock.Clock, observer func(Event)) *record {
	r := &record{}
	r.observer = &eventlog.Observer{Clock: c, Record: r.note}
	if observer != nil {
		r.observer.Notify = func(e eventlog.Event) { observer(newEvent(e)) }
	}
	return r
}

// note counts a step, or remembers a failure.
func (r *record) note(e eventlog.Event) {
	switch e.Step {
	case eventlog.TokenObtained:
		r.tokens.Add(1)
	case eventlog.TokenRefreshed:
		r.tokens.Add(1)
		r.refreshes.Add(1)
	case eventlog.Minted, eventlog.Renewed:
		r.mints.Add(1)
	case eventlog.Loaded, eventlog.Adopted:
		r.loads.Add(1)
	case eventlog.Evicted:
		r.evictions.Add(1)
	case eventlog.OnceMore:
		r.recoveries.Add(1)
	case eventlog.TokenFailed, eventlog.RefreshFailed, eventlog.MintFailed, eventlog.RenewalFailed:
		failed := &ErrorStatus{Time: e.Time, Step: Step(e.Step), Stage: Stage(e.Stage), Message: e.Err.Error()}
		if explained, ok := errors.AsType[*AuthenticationError](e.Err); ok {
			failed.AADSTS = explained.AADSTS
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.last = failed
	}
}

func (r *record) lastError() *ErrorStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return nil
	}
	last := *r.last
	return &last
}

func (r *record) counters() Counters {
	return Counters{
		CachedAnswers: r.cached.Load(),
		Tokens:        r.tokens.Load(),
		Refreshes:     r.refreshes.Load(),
		Mints:         r.mints.Load(),
		Loads:         r.loads.Load(),
		Evictions:     r.evictions.Load(),
		Recoveries:    r.recoveries.Load(),
	}
}
