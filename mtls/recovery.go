package mtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/failure"
)

// RecoveryPolicy runs the rest of a pipeline and, when its binding was refused, has it evicted and runs the rest once
// more with another one. The second refusal is final. It belongs outside the retry policy, above whatever resolves the
// binding for a request.
type RecoveryPolicy struct {
	evict func(context.Context, *Refusal) (again bool)
}

// NewRecoveryPolicy returns a RecoveryPolicy. Its evict function gets every refusal and reports whether another try is
// of use: see [Cache.RemoveBadCert].
func NewRecoveryPolicy(evict func(context.Context, *Refusal) (again bool)) *RecoveryPolicy {
	return &RecoveryPolicy{evict: evict}
}

// Do implements policy.Policy. Policies below it meet the request a second time as the first time left it, as they do
// below azcore's bearer token policy.
func (p *RecoveryPolicy) Do(req *policy.Request) (*http.Response, error) {
	ctx := req.Raw().Context()
	resp, err := req.Next()
	first := refusalOf(err)
	if first == nil || !p.evict(ctx, first) || first.Final {
		return resp, err
	}
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	if rewindErr := req.RewindBody(); rewindErr != nil {
		return nil, fmt.Errorf(
			"mtls: the request was not repeated after recovery, its body cannot be read again (%w): %w",
			rewindErr,
			err,
		)
	}
	if body := req.Body(); body != nil {
		req.Raw().Body = io.NopCloser(
			body,
		) // net/http closes what it sends; whoever made the request may want to send it again
	}
	eventlog.Emit(ctx, eventlog.Event{
		Step: eventlog.OnceMore, Host: first.Host, Replaced: first.Binding.Thumbprint(), Err: first.Err,
	})
	resp, err = req.Next()
	if second := refusalOf(err); second != nil && second.Binding != first.Binding {
		p.evict(ctx, second)
	}
	return resp, err
}

// refusalOf returns the refusal that an error is about, nil if there is none to act on: a paused error carries one that
// was dealt with.
func refusalOf(err error) *Refusal {
	if err == nil || failure.Is[*pausedError](err) {
		return nil
	}
	refusal, _ := errors.AsType[*Refusal](err)
	return refusal
}
