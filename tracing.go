package azmtls

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
)

// tracer is the credential's tracer.
type tracer struct{ tracing.Tracer }

// carry returns a function that gives a context the span of ctx, and nothing else of it: work that many share must not see what
// one of its callers put into the context of his call. azcore has no way to take a span along, but its tracer finds it by
// asking the context for it.
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
