package azmtls_test

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/imdstest"
)

// counts is what a cell has cost so far.
type counts struct {
	imdstest.Counts
	evicted, handled int
}

func (r *run) count() counts {
	return counts{r.f.server.Counts(), r.f.store.evicted(), int(r.handled.Load())}
}

// call makes one call and notes what came of it.
func (r *run) call() (o outcome) {
	before := r.count()
	if !r.armed.Load() { // it is armed within the call, after the mint that the call begins with
		before.Issued++
	}
	ctx := context.Background()
	if _, hangs := r.fault.inject.Do.(imdstest.Hang); hangs {
		deadline := &expiring{ctx, make(chan struct{})}
		ended := make(chan struct{})
		defer close(ended)
		go r.expire(deadline, ended)
		ctx = deadline
	}
	if r.leg == legToken {
		o.result = "ok"
		if _, err := r.f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}}); err != nil {
			o.result = resultOf(err)
		}
	} else {
		o.result, _ = r.send(ctx, r.leg, r.bodyOf())
	}
	after := r.count()
	o.evicted, o.minted = after.evicted-before.evicted, after.Issued-before.Issued
	o.bypassed, o.processed = after.IssueBypass-before.IssueBypass, after.handled-before.handled
	if r.leg == legToken {
		o.processed = after.TokenIssued - before.TokenIssued
	}
	return o
}

// expire lets the deadline pass when the fault has struck, unless the call ends before.
func (r *run) expire(deadline *expiring, ended <-chan struct{}) {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ended:
			return
		case <-look.C:
		}
		if r.armed.Load() && r.f.server.Counts().Faults > 0 {
			close(deadline.done)
			return
		}
	}
}

// complainAbout says what is wrong besides what was counted, "" if nothing is.
func (r *run) complainAbout(outcomes []outcome) (text string) {
	_ = r.f.cred.Close() // ends what is still under way
	complain := func(wrong bool, what string) {
		if wrong {
			text += "; " + what
		}
	}
	evicted, issued := 0, r.base.Issued
	for _, o := range outcomes {
		evicted, issued = evicted+o.evicted, issued+o.minted
	}
	kept := r.f.store.get(alias)
	complain(!r.armed.Load(), "the fault was never armed")
	complain(r.f.server.Counts().Faults == 0 && r.strikes.Load() == 0, "the fault did not strike")
	late := r.f.server.Counts().Issued != issued || r.f.store.evicted() != evicted
	complain(late, "more happened when the call was over")
	complain(len(r.f.server.Rejections()) > 0, "a request was not as the real services demand it")
	complain(r.garbled.Load(), "a request arrived that was not the caller's")
	complain(r.deceived.Load(), "a request went to a server that is not the one that was asked for")
	complain(r.f.store.get("other#att=0") == nil, "another alias was touched")
	complain(evicted == 0 && kept != r.planted, "the binding was kept, but the store lost it")
	complain(evicted > 0 && kept == r.planted, "the binding was evicted, but is still in the store")
	return text
}
