// Package answered carries the note of whether an IMDS has ever answered, from who keeps it to the client that asks it:
// one that never has is given up on early.
package answered

import (
	"context"
	"sync/atomic"
)

type key struct{}

// With returns a context with the note.
func With(ctx context.Context, note *atomic.Bool) context.Context {
	return context.WithValue(ctx, key{}, note)
}

// Note returns the note of the context, nil if it has none.
func Note(ctx context.Context) *atomic.Bool {
	note, _ := ctx.Value(key{}).(*atomic.Bool)
	return note
}
