package azmtls

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/azmtls/azmtls/internal/tokencache"
)

// outage is a time in which a credential that can do without IMDS v2 does: why, and when v2 is asked again. It begins
// with a failure, and ends with a token. The zero value but for its clock: v2 serves.
type outage struct {
	clock    *clock.Clock
	observer *eventlog.Observer

	mu    sync.Mutex
	cause error // nil: v2 serves
	since time.Time
	next  time.Duration // when v2 is asked again, by the clock's boot time
}

const (
	longPause  = 30 * time.Minute // ±10 %, so that a fleet does not ask in step
	shortPause = time.Minute
)

// look returns the cause, nil if v2 serves, and whether v2 is to be asked again: one caller per minute is told so, at
// the most.
func (o *outage) look() (cause error, due bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.clock.Boot()
	if o.cause == nil || now < o.next {
		return o.cause, false
	}
	o.next = now + shortPause
	return o.cause, true
}

// status returns what there is to say, nil if v2 serves.
func (o *outage) status() *FallbackStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cause == nil {
		return nil
	}
	return &FallbackStatus{
		Cause: o.cause.Error(), Since: o.since, Next: o.clock.Wall().Add(o.next - o.clock.Boot()),
	}
}

// hasten has the next caller ask v2 again.
func (o *outage) hasten() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next = o.clock.Boot()
}

// note notes how a request to v2 ended.
func (o *outage) note(ctx context.Context, r tokencache.Request, err error) {
	switch {
	case err == nil:
		o.end(ctx)
	case errors.Is(ctx.Err(), context.Canceled): // by Close
	default:
		o.begin(ctx, err, meaningOf(r, err))
	}
}

func (o *outage) begin(ctx context.Context, err error, m meaning) {
	if m == ofRequest || m == nobodyHere {
		return
	}
	pause := shortPause
	if m == noCertificates {
		pause = clock.Spread(longPause)
	}
	o.mu.Lock()
	began := o.cause == nil
	if began {
		o.since = o.clock.Wall()
	}
	o.cause, o.next = err, o.clock.Boot()+pause
	o.mu.Unlock()
	if began {
		o.tell(ctx, eventlog.Event{Step: eventlog.FellBack, Err: eventlog.Clean(err)})
	}
}

func (o *outage) end(ctx context.Context) {
	o.mu.Lock()
	ended := o.cause != nil
	o.cause = nil
	o.mu.Unlock()
	if ended {
		o.tell(ctx, eventlog.Event{Step: eventlog.CameBack})
	}
}

func (o *outage) tell(ctx context.Context, e eventlog.Event) {
	eventlog.Emit(eventlog.Observe(ctx, o.observer), e)
}

// meaning is what a failure of IMDS v2 means for other calls.
type meaning int

const (
	passing        meaning = iota // it may be over soon
	noCertificates                // IMDS has none for this machine
	nobodyHere                    // nobody answers at the address of IMDS, or somebody else: v1 is not there either
	ofRequest                     // it is about this request alone
)

// meaningOf returns what a failure means.
func meaningOf(r tokencache.Request, err error) meaning {
	absent, _ := errors.AsType[*imds.UnavailableError](err)
	answer, _ := errors.AsType[*oauth.Error](err)
	switch {
	case absent != nil && absent.Absence == imds.NoIMDS:
		return nobodyHere
	case absent != nil && absent.Absence == imds.NoVersion2, imds.IsRefusal(err):
		return noCertificates
	case answer != nil && (ofResource(answer) || r.Bound && r.NoBearer): // bearer tokens may be had all the same
		return ofRequest
	default:
		return passing
	}
}

// ofResource reports whether Entra's answer is about what was asked for, not about who asks: claims, a resource that
// does not exist in the tenant, a scope that is none, an identity that was not assigned to the resource's application.
func ofResource(e *oauth.Error) bool {
	return e.Claims || e.Code == "invalid_scope" || e.Code == "invalid_resource" ||
		e.Has("AADSTS500011", "AADSTS50105")
}
