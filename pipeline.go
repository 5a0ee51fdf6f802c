package azmtls

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/azmtls/azmtls/internal/stage"
	"github.com/azmtls/azmtls/mtls"
)

// tokenClient asks Entra for tokens. Its pipeline is, outermost first: recovery, the binding, azcore's retry, mutual
// TLS.
type tokenClient struct {
	bindings *bindings
	pipeline runtime.Pipeline
}

// exchange is one request for a token on its way through the pipeline, and what happened to it.
type exchange struct {
	request   entra.Request
	transport *mtls.Transport // of the binding presented last
	resolved  int             // how many bindings there were for it
	refused   int             // how many of them were refused
	kept      bool            // the one refused last was kept

	correlationID string // by which IMDS and Entra log it
}

type exchangeKey struct{}

func newTokenClient(options azcore.ClientOptions, b *bindings) *tokenClient {
	c := &tokenClient{bindings: b}
	options.Transport = exchangeTransport{b.cache.Clock}
	c.pipeline = runtime.NewPipeline(module, version, runtime.PipelineOptions{
		PerCall: []policy.Policy{mtls.NewRecoveryPolicy(c.recover), resolvePolicy{b}},
	}, &options)
	return c
}

// exchange sends the request through the pipeline and reads the token.
func (c *tokenClient) exchange(ctx context.Context, x *exchange) (entra.Token, error) {
	req, err := entra.NewRequest(context.WithValue(ctx, exchangeKey{}, x))
	if err != nil {
		return entra.Token{}, err
	}
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return entra.Token{}, err
	}
	token, err := readToken(resp, x.request.TokenType)
	return token, stage.At(stage.Token, err)
}

// readToken reads Entra's answer.
func readToken(resp *http.Response, tokenType string) (entra.Token, error) {
	if resp.StatusCode == http.StatusOK {
		token, err := entra.ParseToken(resp, tokenType)
		if err != nil {
			err = fmt.Errorf("asking %s for a token: %w", resp.Request.URL.Host, err)
		}
		return token, err
	}
	failed := oauth.Read(resp)
	if unbindable(failed) {
		return entra.Token{}, fmt.Errorf("%w: %w", ErrTokenBindingUnsupported, failed)
	}
	return entra.Token{}, failed
}

// recover has a binding evicted that the token endpoint refused.
func (c *tokenClient) recover(ctx context.Context, refusal *mtls.Refusal) (again bool) {
	again = c.bindings.rejected(ctx, refusal)
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		x.refused++
		x.kept = !again
	}
	return again
}

// resolvePolicy gives a token request its binding: connections, endpoint, client id. It stands above azcore's retry, so
// that the caller's RetryOptions speak of Entra alone: IMDS has retry rules of its own.
type resolvePolicy struct{ bindings *bindings }

func (p resolvePolicy) Do(req *policy.Request) (*http.Response, error) {
	x, ok := req.Raw().Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return nil, failure.NonRetriable(errors.New("the request is not one for a token"))
	}
	transport, err := p.bindings.resolve(req.Raw().Context())
	if err != nil {
		return nil, err
	}
	if err := x.request.Prepare(req, transport.Binding()); err != nil {
		return nil, err
	}
	x.transport = transport
	x.resolved++
	var resp *http.Response
	err = p.bindings.tracing.stage(req.Raw().Context(), stage.Token, func(ctx context.Context) (err error) {
		resp, err = req.WithContext(ctx).Next()
		return err
	})
	return resp, err
}

// exchangeTransport sends a token request over the connections of its binding, and reads the answer whole: one that is
// cut short is a failure of the connection, and azcore's retry asks again, which does no harm.
type exchangeTransport struct{ clock *clock.Clock }

func (t exchangeTransport) Do(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok || x.transport == nil {
		return nil, failure.NonRetriable(errors.New("the request was given no binding"))
	}
	ctx, begun, cancel := t.clock.WithLimit(req.Context(), limits.Entra)
	defer cancel()
	disclosed := req.Clone(ctx)
	if err := entra.Disclose(disclosed, x.transport.Binding()); err != nil {
		return nil, failure.NonRetriable(err)
	}
	resp, err := x.transport.Do(disclosed)
	begun()
	if err == nil {
		_, err = runtime.Payload(resp) // which keeps it; it is bounded
	}
	if late := clock.LimitOf(ctx); late != nil && err != nil {
		err = late
	}
	switch {
	case err == nil:
		return resp, nil
	case failure.Is[*mtls.Refusal](err): // which says where
		return nil, err
	}
	return nil, fmt.Errorf("asking %s for a token: %w", req.URL.Host, err)
}
