package mtls

import (
	"context"
	"errors"
	"slices"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/limits"
)

// do does one step and says what is wrong after it.
func (w *modelWorld) do(s step) {
	w.fake.Advance(time.Millisecond) // no two steps at the same instant
	switch s.operation {
	case get:
		w.get(int(s.choice%3)+1, BindingStrength(s.choice>>8%2))
	case refuseCurrent:
		w.refuse(w.entry().current.Load(), s)
	case refuseOld:
		if old := w.old(int(s.choice >> 16)); old != nil {
			w.refuse(old, s)
		}
	case renew:
		w.renew(BindingStrength(s.choice % 2))
	case pass:
		w.pass(passes[s.choice%uint32(len(passes))])
	case changeIMDS:
		// Half of the time it holds what it is asked: much may happen meanwhile.
		w.imds = behaviour(min(s.choice%8, uint32(held)))
		w.effects[s.operation]++
	case changeStore:
		w.changeStore(behaviour(s.choice % uint32(behaviours)))
	case otherProcess:
		w.otherProcess(s.choice)
	case release:
		w.release(behaviour(s.choice % 4))
	case giveUp:
		w.giveUp()
	}
	w.settle()
	w.reap()
	w.compare()
}

// old returns a binding that was given out and is not the one in memory.
func (w *modelWorld) old(n int) *Binding {
	current := w.entry().current.Load()
	olds := slices.DeleteFunc(slices.Clone(w.given), func(b *Binding) bool { return current != nil && b.is(current) })
	if len(olds) == 0 {
		return nil
	}
	return olds[n%len(olds)]
}

// get has some callers ask at once, of the strength of the mint that is under way if one is.
func (w *modelWorld) get(callers int, strength BindingStrength) {
	if w.gate != nil {
		strength = w.demanded
	} else {
		w.demanded, w.cause, w.requests = strength, get, 0
	}
	before, serving := w.mints, w.entry().current.Load()
	good := w.imds == good && w.gate == nil
	blocked := w.blocked(serving)
	for range callers {
		w.call(strength, func(ctx context.Context) (*Binding, error) { return w.cache.GetOrMint(ctx, w.source(strength)) })
	}
	w.settle()
	w.effects[get]++
	if good && !blocked {
		for _, c := range w.waiting {
			if !c.ended() {
				w.complain("a caller waits though nothing is in the way")
			} else if c.err != nil && !c.gaveUp {
				w.complain("no binding though nothing is in the way: %v", c.err)
			}
		}
	}
	if now := w.entry().current.Load(); now != nil && (serving == nil || !now.is(serving)) && !now.admitted.minted {
		w.adopted(now, nil)
		w.waits = false
		if w.mints > before && good {
			w.complain("a mint beside an adoption")
		}
	}
}

// blocked reports whether the model lets a call fail: its mint may have to wait for a unit, or the binding that was
// kept for a second.
func (w *modelWorld) blocked(serving *Binding) bool {
	if available, _ := w.token.certain(w.fake.Boot()); w.waits && !w.paid && !available {
		return true
	}
	return serving != nil && w.entry().kept.binding != nil
}

func (w *modelWorld) call(strength BindingStrength, ask func(context.Context) (*Binding, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &modelCall{cancel: cancel, done: make(chan struct{}), strength: strength}
	w.waiting = append(w.waiting, c)
	go func() {
		defer close(c.done)
		c.given, c.err = ask(ctx)
	}()
}

func (c *modelCall) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// adopted is what the model says of a binding that was taken from the store, in the place of another or of none.
func (w *modelWorld) adopted(b, replaced *Binding) {
	switch {
	case w.barred[b.Thumbprint()]:
		w.complain("a binding that was evicted came back from the store")
	case replaced != nil && b.Certificate.Leaf.NotBefore.Before(replaced.Certificate.Leaf.NotBefore):
		w.complain("an older binding was adopted")
	case (replaced != nil || len(w.barred) > 0) && b.Certificate.PrivateKey.(*modelKey).dead.Load():
		w.complain("a binding was adopted whose key is dead")
	}
}

// refuse has a peer refuse a binding.
func (w *modelWorld) refuse(b *Binding, s step) {
	if b == nil {
		return
	}
	r := &Refusal{Binding: b, Host: "entra.example", Err: errModel, verdict: refused}
	budget := &w.token
	switch s.choice % 4 {
	case 0:
		r.Host, budget = "vault.example", &w.resources
	case 1:
		r.verdict = keyDead
		b.Certificate.PrivateKey.(*modelKey).dead.Store(true)
	case 2:
		r.verdict = attestationRefused
	}
	serving, gone := w.entry().current.Load(), b.Evicted()
	stored, readable := w.stored, w.storing == good && !w.entry().queue.overdue
	available, known := budget.certain(w.fake.Boot())
	w.tried = false
	var again bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		again = w.cache.RemoveBadCert(context.Background(), w.source(0), r)
	}()
	w.settle()
	select {
	case <-done:
	default:
		w.complain("RemoveBadCert hangs")
		return
	}
	w.effects[s.operation]++
	now := w.entry().current.Load()
	switch {
	case serving != nil && !b.is(serving):
		if !again || now != serving {
			w.complain("a late refusal of an old binding changed the one in memory")
		}
		if !gone && b.Thumbprint() != serving.Thumbprint() {
			w.barred[b.Thumbprint()] = true
		}
	case gone:
		if !again || now != serving {
			w.complain("a second refusal of an evicted binding did something")
		}
	case now != nil && !now.is(b):
		w.adopted(now, b)
		w.barred[b.Thumbprint()] = true
		if now.Thumbprint() != stored.Thumbprint() || !again {
			w.complain("what was adopted is not what the store holds")
		}
	case b.Evicted():
		if readable && stored != nil && w.isNewer(stored, b) {
			w.complain("evicted though the store has a newer binding")
		}
		if r.verdict == keyDead && (known && !available || !known && !w.entry().paid) {
			w.paid, w.waits = false, true
		} else {
			w.spend(budget, "an eviction")
			w.paid = true
		}
		w.barred[b.Thumbprint()] = true
		w.bypass, w.mustDelete = r.verdict == attestationRefused, !w.tried
		if !again {
			w.complain("evicted, and not to be tried again")
		}
	default:
		if again || r.verdict == keyDead || known && available {
			w.complain("kept (again: %t) with verdict %v, a unit: %t", again, r.verdict, available)
		}
	}
}

// isNewer reports whether the stored binding is one that is to be adopted in the place of another.
func (w *modelWorld) isNewer(stored, bad *Binding) bool {
	return stored.Thumbprint() != bad.Thumbprint() && !w.barred[stored.Thumbprint()] &&
		!stored.Certificate.Leaf.NotBefore.Before(bad.Certificate.Leaf.NotBefore) &&
		!stored.Certificate.PrivateKey.(*modelKey).dead.Load()
}

// renew demands a new binding, unless a mint is under way.
func (w *modelWorld) renew(strength BindingStrength) {
	if w.gate != nil {
		return
	}
	w.demanded, w.cause, w.requests = strength, renew, 0
	old := w.entry().current.Load()
	serves := old != nil && old.usable()
	available, known := w.token.certain(w.fake.Boot())
	var pause *pausedError
	before, charged, was := w.mints, w.entry().token.last, w.paid
	if was || available || !known {
		w.paid = !serves // before the mint begins
	}
	if !was && (available || !known) {
		w.token.spend(w.fake.Boot())
	}
	w.call(strength, func(ctx context.Context) (*Binding, error) { return nil, w.cache.Renew(ctx, w.source(strength)) })
	w.settle()
	w.effects[renew]++
	c := w.waiting[len(w.waiting)-1]
	refused := c.ended() && errors.As(c.err, &pause) && errors.Is(c.err, errNoUnit)
	switch {
	case refused && (was || known && available):
		w.complain("a renewal is refused though there is a unit")
	case refused && !known: // it was spent in vain
		w.token = rationing{}
		w.resync(was, charged)
	case !refused && !was && known && !available:
		w.complain("a renewal without a unit")
	case !refused && w.mints == before:
		w.complain("a renewal without a mint: %v", c.err)
	}
}

// resync takes over what the jitter decided.
func (w *modelWorld) resync(paid bool, charged time.Duration) {
	e := w.entry()
	w.paid = paid
	w.token = rationing{
		most: e.token.cap, level: e.token.level, last: charged, earliest: e.token.next, latest: e.token.next,
	}
}

// passes is how much time may pass: less and more than a budget, a renewal's back-off and half of a certificate take.
var passes = []time.Duration{
	300 * time.Millisecond, 2 * time.Second, 10 * time.Second, 3 * time.Minute, time.Hour, 11 * time.Hour,
}

// maxAge is how long a sequence lasts at most: certificates are not stored on their last day.
const maxAge = 5 * 24 * time.Hour

func (w *modelWorld) pass(d time.Duration) {
	if w.fake.Wall().Add(d).After(w.issued.start.Add(maxAge)) {
		return
	}
	w.effects[pass]++
	w.fake.Advance(d)
}

func (w *modelWorld) changeStore(how behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.storing == held && how != held {
		close(w.hung)
		w.hung = make(chan struct{})
	}
	w.storing = how
	w.effects[changeStore]++
}

// otherProcess stores a binding: a newer one, an older one, one whose key is dead, or one that was evicted.
func (w *modelWorld) otherProcess(choice uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaf := w.certificate()
	switch choice % 5 {
	case 0:
		leaf = w.issued.leaves[0]
	case 1:
		if old := w.old(int(choice >> 16)); old != nil {
			leaf = old.Certificate.Leaf
		}
	}
	w.stored = w.binding(leaf, BindingStrength(choice>>8%2)+1)
	w.stored.Certificate.PrivateKey.(*modelKey).dead.Store(choice%5 == 2)
	w.effects[otherProcess]++
}

// release has IMDS answer what it held.
func (w *modelWorld) release(how behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.imds = how
	if w.gate != nil {
		close(w.gate)
		w.gate = nil
		w.effects[release]++
	}
}

// giveUp has the first caller who waits stop.
func (w *modelWorld) giveUp() {
	for _, c := range w.waiting {
		if !c.ended() {
			c.gaveUp = true
			c.cancel()
			w.settle()
			w.effects[giveUp]++
			if !c.ended() || !errors.Is(c.err, context.Canceled) {
				w.complain("a caller who gave up got %v", c.err)
			}
			return
		}
	}
}

// reap looks at the calls that have ended.
func (w *modelWorld) reap() {
	w.waiting = slices.DeleteFunc(w.waiting, func(c *modelCall) bool {
		if !c.ended() {
			if w.gate == nil {
				w.complain("a call hangs")
			}
			return false
		}
		c.cancel()
		var pause *pausedError
		var late *clock.LimitError
		switch {
		case c.given != nil && c.given.Strength() < c.strength:
			w.complain("a binding that is too weak")
		case c.given != nil && !slices.ContainsFunc(w.given, c.given.is):
			w.given = append(w.given, c.given)
		case c.err != nil && !c.gaveUp && !errors.Is(c.err, errModel) && !errors.As(c.err, &late) &&
			!errors.As(c.err, &pause) && !errors.Is(c.err, errSameCertificate):
			w.complain("an error of no kind: %v", c.err)
		}
		return true
	})
}

// compare compares the entry with the model.
func (w *modelWorld) compare() {
	if w.gate != nil {
		return
	}
	e := w.entry()
	for name, pair := range map[string]struct {
		is    *budget
		model *rationing
	}{"token endpoint": {&e.token, &w.token}, "resources": {&e.resources, &w.resources}} {
		if is, model := pair.is, pair.model; is.last != model.last || is.next < model.earliest || is.next > model.latest {
			w.complain("the budget of the %s: spent at %s, next at %s; the model says %s, %s to %s",
				name, is.last, is.next, model.last, model.earliest, model.latest)
		}
	}
	if e.paid != w.paid || (e.unpaid != nil) != w.waits {
		w.complain("paid %t, waits %t; the model says %t and %t", e.paid, e.unpaid != nil, w.paid, w.waits)
	}
	for _, b := range w.given {
		if b.Evicted() && !w.barred[b.Thumbprint()] && e.tombstones.bar(b) {
			w.complain("a binding was evicted that nobody refused")
		}
	}
	if len(w.barred) != len(e.tombstones) {
		w.complain("%d tombstones; the model has %d", len(e.tombstones), len(w.barred))
	}
}

// end ends all that is under way, by its limits.
func (w *modelWorld) end() {
	w.changeStore(good)
	for range 20 {
		w.fake.Advance(limits.Mint)
		w.settle()
		w.release(good)
		w.settle()
	}
	synctest.Wait()
	for _, c := range w.waiting {
		if !c.ended() {
			w.complain("a call never ends")
		}
	}
}
