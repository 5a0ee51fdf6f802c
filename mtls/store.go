package mtls

import (
	"context"
	"errors"
)

// ErrNotFound is what a [Store] returns when it has no usable binding for an alias.
var ErrNotFound = errors.New("mtls: no binding is stored under this alias")

// ErrKeyNotKept is what Save of a [Store] returns for a binding whose private key it cannot find again in another
// process, as for any key in memory. The [Cache] does not tell of it: there is nothing to mend.
var ErrKeyNotKept = errors.New("mtls: the private key does not outlive its process")

// Store keeps bindings beyond the life of the process. It is best effort: the [Cache] logs its errors, bounds its time
// and goes on without it. Calls for one alias come one at a time. Implementations must be safe for concurrent
// use by several aliases and, where the store is shared, by several processes. Stores are compared with == to decide
// which credentials may share a binding, so a pointer is the natural receiver.
type Store interface {
	// Load returns the usable binding of the alias, of several the newest by NotBefore, or ErrNotFound.
	Load(ctx context.Context, alias string) (*Binding, error)
	// Save keeps the binding under the alias and prunes the alias's expired entries. It returns ErrKeyNotKept for one
	// that it never keeps.
	Save(ctx context.Context, alias string, b *Binding) error
	// DeleteAll removes every entry of this alias and of no other.
	DeleteAll(ctx context.Context, alias string) error
}

// NoStore is a Store that keeps nothing: bindings live in memory only and are minted anew by every process.
type NoStore struct{}

// Load returns ErrNotFound.
func (NoStore) Load(context.Context, string) (*Binding, error) { return nil, ErrNotFound }

// Save does nothing.
func (NoStore) Save(context.Context, string, *Binding) error { return nil }

// DeleteAll does nothing.
func (NoStore) DeleteAll(context.Context, string) error { return nil }
