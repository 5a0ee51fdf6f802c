package mtls

import (
	"errors"
	"fmt"

	"github.com/azmtls/azmtls/internal/eventlog"
)

// Refusal is the error of a binding that was refused, and unwraps to the evidence. [Transport] returns it,
// [RecoveryPolicy] has its binding evicted by [Cache.RemoveBadCert] and sends the request once more.
type Refusal struct {
	// Binding is the binding that was refused.
	Binding *Binding
	// Host is where it was presented: host[:port].
	Host string
	// Err is the evidence.
	Err error
	// Final says that the binding must be evicted, but the request not be repeated: the peer may have processed it.
	Final bool

	verdict verdict // what the table of evidence made of it
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("mtls: the binding with certificate %s was refused at %s: %v",
		eventlog.Mask(r.Binding.Thumbprint()), r.Host, r.Err)
}

// Unwrap returns the evidence.
func (r *Refusal) Unwrap() error { return r.Err }

// NonRetriable marks the error for azcore's retry policy: the same binding would be refused again.
func (*Refusal) NonRetriable() {}

// retriable is a Final refusal as its caller gets it: a lost connection, which azcore's retry policy may well repeat.
// errors.As finds the Refusal in it, but not its mark.
type retriable struct{ refusal *Refusal }

func (e retriable) Error() string { return e.refusal.Error() }

func (e retriable) Is(target error) bool { return errors.Is(e.refusal.Err, target) }

func (e retriable) As(target any) bool {
	if refusal, ok := target.(**Refusal); ok {
		*refusal = e.refusal
		return true
	}
	return errors.As(e.refusal.Err, target)
}
