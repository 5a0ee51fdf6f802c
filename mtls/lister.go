package mtls

import "context"

// Lister is an optional interface of a [Store] that can tell what it holds, for diagnosis.
type Lister interface {
	// List returns the entries of all aliases. It is a look that changes nothing: it deletes no entry that Load would
	// delete and sets none aside.
	List(ctx context.Context) ([]Stored, error)
}

// Stored is one entry of a store.
type Stored struct {
	// Alias is the name that it is stored under, whole: mask it where it is shown. It is empty if it cannot be read.
	Alias string
	// Binding is what is stored. It is nil if it cannot be read, and has no key if that is gone.
	Binding *Binding
	// Err is why Load would not return the entry, nil if it would, were there no newer one.
	Err error
}
