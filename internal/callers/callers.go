// Package callers runs the caller's own code: a dialer, a proxy function, a key, a body. What that fails with is never
// evidence of anything, whichever error value it chose, and its panics are errors: net/http and crypto/tls run it in
// goroutines of their own, where a panic would end the process.
package callers

import "fmt"

// Error is what the caller's own code failed with.
type Error struct{ error }

// NewError returns the error as one of the caller's own code, nil for nil.
func NewError(err error) error {
	if err == nil {
		return nil
	}
	return &Error{err}
}

// Unwrap returns what the code failed with.
func (e *Error) Unwrap() error { return e.error }

// NonRetriable marks the error for azcore's retry policy: the caller's code would be asked once more for what it cannot
// do.
func (*Error) NonRetriable() {}

// Guard runs a function of the caller's. A panic of it is an error.
func Guard(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s panicked: %v", what, r)
		}
	}()
	return f()
}
