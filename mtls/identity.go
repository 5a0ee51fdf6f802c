package mtls

import (
	"context"
	"errors"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/answered"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/limits"
)

// Identity is whom a certificate speaks for, or whom a machine's metadata names.
type Identity struct {
	ClientID string // a GUID, compared without case
	TenantID string // likewise
}

func (i Identity) is(other Identity) bool {
	return strings.EqualFold(i.ClientID, other.ClientID) && strings.EqualFold(i.TenantID, other.TenantID)
}

// identity returns whom the binding speaks for.
func (b *Binding) identity() Identity {
	id := Identity{ClientID: b.ClientID}
	if u, err := url.Parse(b.Endpoint); err == nil {
		id.TenantID = path.Base(u.Path)
	}
	return id
}

// holder is the identity that the bindings of an entry speak for, one after the other, and what the machine's metadata
// says of it.
type holder struct {
	identity Identity
	named    atomic.Bool // the metadata names it
	disowned atomic.Bool // the metadata names another

	// ask has the metadata asked whether it names another by now, within limits. Nil: nobody can ask.
	ask func(context.Context) (another bool)
}

// Disowned reports that the metadata of the machine names another identity than that of the binding: an identity that
// was deleted and made anew, or the disk of another machine. Nothing that was obtained with the binding is of use then.
// Whoever keeps tokens drops them then, bearer tokens too.
func (b *Binding) Disowned() bool {
	return b.admitted != nil && b.admitted.holder != nil && b.admitted.holder.disowned.Load()
}

// disowned asks the metadata, if it can be asked.
func (b *Binding) disowned(ctx context.Context) bool {
	if b.admitted == nil || b.admitted.holder == nil || b.admitted.holder.ask == nil {
		return false
	}
	return b.admitted.holder.ask(ctx)
}

const (
	askPause   = 5 * time.Minute // between two questions after Entra said that it knows no such identity
	checkPause = time.Minute     // between two attempts to check a stored binding
)

// admit takes the binding in.
func (e *entry) admit(src Source, b *Binding) {
	b.admit(e.clock)
	e.mu.Lock()
	defer e.mu.Unlock()
	id := b.identity()
	if e.holder == nil || e.holder.disowned.Load() || !e.holder.identity.is(id) {
		b.admitted.holder = e.newHolder(src, id)
		return
	}
	b.admitted.holder = e.holder
}

// serveNow makes the binding the one in memory. If it is for another identity, of which the metadata speaks by now, the
// one before is nobody's any more.
func (e *entry) serveNow(b *Binding) {
	h := b.admitted.holder
	if e.holder != nil && !e.holder.identity.is(h.identity) && h.named.Load() {
		e.holder.disowned.Store(true)
	}
	e.holder = h
	e.current.Store(b)
}

func (e *entry) newHolder(src Source, id Identity) *holder {
	h := &holder{identity: id}
	if identify := src.Identify; identify != nil {
		h.ask = func(ctx context.Context) bool { return e.askAgain(ctx, h, identify) }
	}
	return h
}

// vetIdentity returns why a stored binding is not for this machine. It asks the metadata before the first use, and does
// not wait long for it: where IMDS does not answer, the binding serves, and is checked later.
func (e *entry) vetIdentity(ctx context.Context, src Source, b *Binding) error {
	h := b.admitted.holder
	if src.Identify == nil || h.named.Load() {
		return nil
	}
	ctx, _, cancel := e.clock.WithLimit(ctx, limits.Identity)
	defer cancel()
	if another, err := e.compare(ctx, h, src.Identify); another {
		return errDisowned
	} else if err != nil {
		eventlog.Writef(ctx, eventlog.Binding, "binding %s of %s serves unchecked, IMDS does not say who this machine is: %v",
			eventlog.Mask(b.Thumbprint()), eventlog.Mask(src.Alias), err)
		e.mu.Lock()
		e.nextCheck = e.clock.Boot() + checkPause
		e.mu.Unlock()
	}
	return nil
}

// compare asks the metadata whether it names another identity than the holder's, unless IMDS asked to be left alone.
func (e *entry) compare(
	ctx context.Context, h *holder, identify func(context.Context) (Identity, error),
) (another bool, err error) {
	if wait, cause := e.imds.left(e.clock.Boot()); wait > 0 {
		return false, cause
	}
	who, err := identify(answered.With(ctx, &e.imds.answered))
	if err != nil {
		e.imds.note(e.clock.Boot(), err)
		return false, err
	}
	if h.identity.is(who) {
		h.named.Store(true)
		return false, nil
	}
	return true, nil
}

// check starts the check of a binding in the background that could not be made before its first use.
func (e *entry) check(ctx context.Context, src Source, b *Binding) {
	h := b.admitted.holder
	if src.Identify == nil || h.named.Load() || !e.pass(&e.nextCheck, checkPause) {
		return
	}
	e.questions.Start(ctx, h, limits.Metadata, func(ctx context.Context) (bool, error) {
		another, err := e.compare(ctx, h, src.Identify)
		if !another {
			return false, err
		}
		h.disowned.Store(true)
		e.remove(ctx, src, &Refusal{Binding: b, Host: b.tokenHost(), Err: errDisowned, verdict: disowned})
		return true, nil
	})
}

var errDisowned = errors.New("the metadata of this machine names another client or tenant")

// askAgain has the metadata asked when Entra says that it knows no such identity, at most once in askPause. All who
// come with the same answer of Entra's share the question.
func (e *entry) askAgain(ctx context.Context, h *holder, identify func(context.Context) (Identity, error)) bool {
	another, _ := e.questions.Do(ctx, h, limits.Metadata, func(ctx context.Context) (bool, error) {
		if h.disowned.Load() {
			return true, nil
		}
		if !e.pass(&e.nextAsk, askPause) {
			return false, nil
		}
		another, err := e.compare(ctx, h, identify)
		if another {
			h.disowned.Store(true)
		}
		return another, err
	})
	return another
}

// pass reports whether it is time for what may be done next at that time, and notes that it is done now.
func (e *entry) pass(next *time.Duration, pause time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Boot()
	if now < *next {
		return false
	}
	*next = now + pause
	return true
}
