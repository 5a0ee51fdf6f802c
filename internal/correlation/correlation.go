// Package correlation carries the id by which IMDS and Entra log the requests of one acquisition of a token.
package correlation

import (
	"context"

	"github.com/google/uuid"
)

type key struct{}

// With returns a context with the id.
func With(ctx context.Context, id string) context.Context { return context.WithValue(ctx, key{}, id) }

// ID returns the id of the context, a new one if it has none.
func ID(ctx context.Context) string {
	if id, _ := ctx.Value(key{}).(string); id != "" {
		return id
	}
	return uuid.NewString()
}
