package azmtls

import (
	"context"
	"fmt"
	"time"

	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/stage"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/google/uuid"
)

// checkRequest refuses a request that cannot be made.
func checkRequest(r tokencache.Request) error {
	if err := checkResource(r.Resource); err != nil {
		return inputError(err)
	}
	if _, err := entra.MergeClaims(r.Claims, r.CAE); err != nil {
		return inputError(err)
	}
	return nil
}

// token gets a token that is not at hand. Callers who want the same one at the same time share it.
func (c *ImdsV2MtlsCredential) token(ctx context.Context, r tokencache.Request) (*tokencache.Entry, error) {
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, inputError(fmt.Errorf("nothing was done, the call's context has ended: %w", err))
	}
	carry := c.tracing.carry(ctx)
	e, err := c.tokens.Share(ctx, r, func(ctx context.Context) (*tokencache.Entry, error) {
		if r.Claims == "" {
			if e, _ := c.tokens.Get(r.Key); e != nil {
				return e, nil // it came between this caller's look into the cache and its turn
			}
		}
		return c.authenticate(carry(ctx), r, outcomes{eventlog.TokenObtained, eventlog.TokenFailed})
	})
	if err != nil && !explained(err) { // this caller stopped waiting
		if err == ctx.Err() {
			err = fmt.Errorf("nothing was done yet: %w", err)
		}
		err = newAuthenticationError(err, nil)
	}
	return e, err
}

// current returns the token to send in the place of one that was issued here: itself, or, when it is not valid any
// more, the one that GetToken would give now. A client's own policy may hold a token for long after its binding was
// evicted.
func (c *ImdsV2MtlsCredential) current(ctx context.Context, issued *tokencache.Entry) (*tokencache.Entry, error) {
	if c.tokens.Valid(issued) {
		return issued, nil
	}
	if e, _ := c.tokens.Get(issued.Key); e != nil {
		return e, nil
	}
	return c.token(ctx, tokencache.Request{Key: issued.Key, NoBearer: c.tokenType == TokenTypeMtlsPoP})
}

// outcomes are the steps that a token request ends with.
type outcomes struct{ obtained, failed eventlog.Step }

// authenticate asks Entra for a token.
func (c *ImdsV2MtlsCredential) authenticate(
	ctx context.Context, r tokencache.Request, step outcomes,
) (e *tokencache.Entry, err error) {
	id := uuid.NewString()
	ctx, end := c.tracing.start(correlation.With(eventlog.Observe(ctx, c.record.observer), id), "GetToken")
	defer func() { end(err) }()
	defer c.keys.prepare()
	claims, err := entra.MergeClaims(r.Claims, r.CAE)
	if err != nil {
		return nil, inputError(err)
	}
	begin, key := time.Now(), r.Key
	x := &exchange{
		request:       entra.Request{Resource: key.Resource, TokenType: tokenType(key.Bound), Claims: claims},
		correlationID: id,
	}
	token, err := c.requests.exchange(ctx, x)
	if err != nil && key.Bound && !r.NoBearer {
		if bearer, ok := c.bearerInstead(ctx, x, r.Claims, err); ok {
			token, err, key.Bound = bearer, nil, false
		}
	}
	if err != nil {
		err = flight.Explain(ctx, err)
		failed := eventlog.Event{Step: step.failed, Resource: key.Resource, Duration: time.Since(begin), Stage: stage.Of(err)}
		err = explain(err, x, c.demanding || r.NoBearer)
		failed.Err = eventlog.Clean(err)
		eventlog.Emit(ctx, failed)
		c.landed(ctx, r, err)
		return nil, err
	}
	binding := x.transport.Binding()
	e = c.tokens.NewEntry(key, token.Value, token.Life, token.Refresh, binding)
	c.tokens.Put(e)
	eventlog.Emit(ctx, eventlog.Event{
		Step: step.obtained, Resource: key.Resource, Bound: key.Bound, Thumbprint: binding.Thumbprint(),
		Duration: time.Since(begin),
	})
	c.landed(ctx, r, nil)
	return e, nil
}

func tokenType(bound bool) string {
	if bound {
		return entra.TypeMtlsPoP
	}
	return entra.TypeBearer
}

// refresh gets a token in the background. Those who need it before it is there share the work.
func (c *ImdsV2MtlsCredential) refresh(ctx context.Context, r tokencache.Request, step outcomes) {
	c.tokens.Refresh(ctx, r, func(ctx context.Context) (*tokencache.Entry, error) {
		return c.authenticate(ctx, r, step)
	})
}
