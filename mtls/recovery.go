package mtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// RecoveryPolicy runs the rest of a pipeline and, when the binding was rejected, has it evicted and runs the rest once more
// with a fresh one. The second rejection is final. It belongs outside the retry policy, above whatever resolves the
// binding for a request.
type RecoveryPolicy struct {
	evict func(context.Context, *BindingRejectedError) bool
}

// NewRecoveryPolicy returns a RecoveryPolicy. Its evict function gets every rejection and says whether another try is of use;
// see [Cache.Refused].
func NewRecoveryPolicy(evict func(context.Context, *BindingRejectedError) bool) *RecoveryPolicy {
	return &RecoveryPolicy{evict: evict}
}

// Do implements policy.Policy. Policies below it meet the request a second time as the first time left it, as they do below
// azcore's bearer token policy. A BackoffError is returned as it is: it carries an earlier rejection, and nothing was tried.
func (p *RecoveryPolicy) Do(req *policy.Request) (*http.Response, error) {
	ctx := req.Raw().Context()
	resp, err := req.Next()
	first, rejected := errors.AsType[*BindingRejectedError](err)
	if !rejected || isA[*BackoffError](err) {
		return resp, err
	}
	if !p.evict(ctx, first) {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	if rewindErr := req.RewindBody(); rewindErr != nil {
		return nil, fmt.Errorf("mtls: the request was not repeated after recovery, its body cannot be read again (%w): %w", rewindErr, err)
	}
	if body := req.Body(); body != nil {
		req.Raw().Body = io.NopCloser(body) // net/http closes what it sends; whoever made the request may want to send it again
	}
	Logf(EventRecovery, "trying once more with a fresh binding: %v", err)
	resp, err = req.Next()
	if second, rejected := errors.AsType[*BindingRejectedError](err); rejected && second.Binding != first.Binding {
		p.evict(ctx, second)
	}
	return resp, err
}
