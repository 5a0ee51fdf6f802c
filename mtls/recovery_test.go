package mtls_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

type refusing struct{ requests int }

func (r *refusing) Do(*http.Request) (*http.Response, error) {
	r.requests++
	return nil, &mtls.Refusal{Binding: &mtls.Binding{}, Host: "resource.example", Err: errors.New("no")}
}

// A caller who has gone while the binding was being evicted gets its context's error, and the refusal; no request is
// made for it.
func TestRecoveryEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	service := &refusing{}
	pipeline := runtime.NewPipeline("test", "v1", runtime.PipelineOptions{
		PerCall: []policy.Policy{mtls.NewRecoveryPolicy(func(context.Context, *mtls.Refusal) bool {
			cancel()
			return true
		})},
	}, &policy.ClientOptions{Transport: service, Retry: policy.RetryOptions{MaxRetries: -1}})
	req, err := runtime.NewRequest(ctx, http.MethodGet, "https://resource.example")
	require.NoError(t, err)
	_, err = pipeline.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	var refusal *mtls.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, 1, service.requests)
}
