package azmtls

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/problem"
	"github.com/azmtls/azmtls/internal/stage"
)

// tracer is the credential's tracer.
type tracer struct{ tracing.Tracer }

// start begins the outermost span of a flight, which azcore's pipelines find.
func (t tracer) start(ctx context.Context, name string) (context.Context, func(error)) {
	ctx, end := runtime.StartSpan(ctx, credName+"."+name, t.Tracer, nil)
	return ctx, func(err error) {
		if err != nil && !explained(err) {
			err = newAuthenticationError(err, nil) // masks identifiers
		}
		end(err)
	}
}

// stage runs one stage on the way to a token. Those who stop waiting are told of it; it has a span, an event with its
// duration, and a mark on its error.
func (t tracer) stage(ctx context.Context, s stage.Stage, run func(context.Context) error) error {
	flight.Enter(ctx, s)
	begin := time.Now()
	inner, span := t.Start(ctx, credName+"."+string(s), nil)
	defer span.End()
	err := stage.At(s, run(inner))
	if err != nil {
		span.SetStatus(tracing.SpanStatusError, problem.MaskIDs(err.Error()))
	}
	eventlog.Emit(ctx, eventlog.Event{Step: eventlog.StageEnded, Stage: s, Duration: time.Since(begin), Err: err})
	return err
}

// carry returns a function that gives a context the span of ctx, and nothing else of it: work that many share must
// not see what one of its callers put into the context of his call. azcore has no way to take a span along, but its
// tracer finds it by asking the context for it.
func (t tracer) carry(ctx context.Context) func(context.Context) context.Context {
	if !t.Enabled() {
		return func(own context.Context) context.Context { return own }
	}
	asked := &askedFor{Context: ctx, values: map[any]any{}}
	t.SpanFromContext(asked)
	return func(own context.Context) context.Context { return &answering{own, asked.values} }
}

// askedFor is a context that remembers what it was asked for.
type askedFor struct {
	context.Context
	values map[any]any
}

func (a *askedFor) Value(key any) any {
	value := a.Context.Value(key)
	if value != nil {
		a.values[key] = value
	}
	return value
}

// answering is a context with some values more.
type answering struct {
	context.Context
	values map[any]any
}

func (a *answering) Value(key any) any {
	if value := a.Context.Value(key); value != nil {
		return value
	}
	return a.values[key]
}
