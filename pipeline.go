package azmtls

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/azmtls/azmtls/internal/bounded"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/mtls"
)

// exchange is one request for a token on its way through the pipeline, and what happened to it.
type exchange struct {
	request   entra.Request
	binding   *mtls.Binding // the one presented last
	transport *mtls.Transport
	rejected  int // how many bindings were rejected
	presented int // how many requests went out
}

type exchangeKey struct{}

// newPipeline returns the pipeline of the token request, outermost first: recovery, azcore's retry, the binding, mutual TLS.
func (c *ImdsV2MtlsCredential) newPipeline() runtime.Pipeline {
	options := c.options.ClientOptions
	options.Transport = tokenTransport{}
	return runtime.NewPipeline(module, version, runtime.PipelineOptions{
		PerCall:  []policy.Policy{mtls.NewRecoveryPolicy(c.recover)},
		PerRetry: []policy.Policy{bindPolicy{c}},
	}, &options)
}

// tokenTransport sends a token request over the connections of its binding.
type tokenTransport struct{}

func (tokenTransport) Do(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok || x.transport == nil {
		return nil, mtls.NonRetriable(errors.New("the request was given no binding"))
	}
	disclosed := req.Clone(req.Context())
	if err := entra.Disclose(disclosed, x.binding); err != nil {
		return nil, mtls.NonRetriable(err)
	}
	resp, err := x.transport.Do(disclosed)
	if err == nil {
		bounded.Response(resp)
	}
	return resp, err
}

// exchange sends the request through the pipeline and reads the token.
func (c *ImdsV2MtlsCredential) exchange(ctx context.Context, x *exchange) (entra.Token, error) {
	req, err := entra.NewRequest(context.WithValue(ctx, exchangeKey{}, x))
	if err != nil {
		return entra.Token{}, err
	}
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return entra.Token{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return entra.Token{}, entra.ParseError(resp)
	}
	token, err := entra.ParseToken(resp, x.request.TokenType, c.now())
	if err != nil {
		return entra.Token{}, err
	}
	c.options.Cache.Accepted(c.source, x.binding, "")
	return token, nil
}

// recover evicts a binding that the token endpoint rejected; its connections end and its tokens are dropped with it.
func (c *ImdsV2MtlsCredential) recover(ctx context.Context, rejection *mtls.BindingRejectedError) bool {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		x.rejected++
	}
	return c.evict(ctx, rejection, "")
}

// evict has the binding of a rejection evicted. The resource is the host that rejected it, empty for the token endpoint.
func (c *ImdsV2MtlsCredential) evict(ctx context.Context, rejection *mtls.BindingRejectedError, resource string) bool {
	mtls.Logf(EventRecovery, "%v", rejection)
	retry := c.options.Cache.Refused(ctx, c.source, rejection, resource)
	if rejection.Binding.Evicted() {
		c.pools.close(rejection.Binding)
	}
	c.tracer.SpanFromContext(ctx).SetAttributes(
		tracing.Attribute{Key: "azmtls.rejected_certificate", Value: mtls.Mask(rejection.Binding.Thumbprint())},
		tracing.Attribute{Key: "azmtls.rejected_at", Value: rejection.Host},
		tracing.Attribute{Key: "azmtls.recovery_retry", Value: retry},
	)
	return retry
}

// bindPolicy resolves the binding of a token request, completes the request with it and sends it over its connections. It
// reads from Entra's errors whether the binding is to blame.
type bindPolicy struct{ c *ImdsV2MtlsCredential }

func (p bindPolicy) Do(req *policy.Request) (*http.Response, error) {
	ctx := req.Raw().Context()
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		return nil, mtls.NonRetriable(errors.New("the request is not one for a token"))
	}
	b, err := p.c.options.Cache.GetOrMint(ctx, p.c.source)
	if err == nil {
		err = x.request.Prepare(req, b)
	}
	if err != nil {
		// IMDS has been retried by its own rules, and nothing else here gets better by waiting.
		return nil, mtls.NonRetriable(err)
	}
	x.binding, x.transport = b, p.c.pools.of(b)
	x.presented++
	resp, err := req.Next()
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	failure := entra.ParseError(resp)
	switch mtls.Classify(failure, mtls.AttemptInfo{StatusCode: resp.StatusCode, OAuthError: failure.Code, AADSTS: failure.AADSTS}) {
	case mtls.BindingRejected:
		return nil, &mtls.BindingRejectedError{Binding: b, Host: req.Raw().URL.Host, Err: failure}
	case mtls.TokenBindingUnsupported:
		return nil, mtls.NonRetriable(fmt.Errorf("%w: %w", ErrTokenBindingUnsupported, failure))
	default:
		return resp, nil // azcore's retry policy knows what to do with the status
	}
}
