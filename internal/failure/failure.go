// Package failure marks errors with what their reader must know of them.
package failure

import (
	"errors"
	"time"
)

// NonRetriable marks an error so that azcore's retry policy does not repeat what cannot get better.
func NonRetriable(err error) error { return nonRetriable{err} }

type nonRetriable struct{ error }

func (e nonRetriable) Unwrap() error { return e.error }
func (nonRetriable) NonRetriable()   {}

// Definite marks a failure to mint that asking again would repeat: a refusal, an answer that is of no use, a key that
// cannot be had. It counts in the budget of mints; failures that pass by themselves do not.
func Definite(err error) error { return definite{err} }

// IsDefinite reports whether an error is marked as Definite.
func IsDefinite(err error) bool { return Is[definite](err) }

type definite struct{ error }

func (e definite) Unwrap() error { return e.error }

// Pause marks an error with how long its peer asks to be left alone.
func Pause(err error, asked time.Duration) error { return paused{err, asked} }

// PauseOf returns how long a peer asks to be left alone, false if it does not.
func PauseOf(err error) (time.Duration, bool) {
	p, ok := errors.AsType[paused](err)
	return p.asked, ok
}

type paused struct {
	error
	asked time.Duration
}

func (e paused) Unwrap() error { return e.error }

// Is reports whether an error of type T is in the chain.
func Is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}
