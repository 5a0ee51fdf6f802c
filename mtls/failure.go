package mtls

import (
	"errors"
	"fmt"
)

// Failure is what a failed attempt says about the binding: see [Classify].
type Failure int

const (
	// None: there was no failure.
	None Failure = iota
	// BindingRejected: the binding cannot be used any more. Evict it, get another and try once more.
	BindingRejected
	// ConnectionLost: the connection ended before the response began. It says nothing yet: try again on a fresh one.
	ConnectionLost
	// ServerUntrusted: this side refused the server's certificate.
	ServerUntrusted
	// Unreachable: no connection came about, or no answer in time.
	Unreachable
	// Canceled: the caller's context was cancelled or its deadline passed.
	Canceled
	// ServerBusy: the server answered 429 or 5xx.
	ServerBusy
	// TokenBindingUnsupported: Entra does not issue bound tokens for the resource (AADSTS392196).
	TokenBindingUnsupported
	// Other: any other failure. It is no evidence against the binding.
	Other
)

var failureNames = [...]string{"none", "binding rejected", "connection lost", "server untrusted", "unreachable", "canceled", "server busy", "token binding unsupported", "other"}

// String returns the name of the failure, for logs and errors.
func (f Failure) String() string {
	if f < 0 || int(f) >= len(failureNames) {
		return fmt.Sprintf("Failure(%d)", int(f))
	}
	return failureNames[f]
}

// BindingRejectedError says that a binding cannot be used any more, and unwraps to the evidence. azcore's retry policy does
// not retry it; [RecoveryPolicy] evicts the binding and tries once more.
type BindingRejectedError struct {
	// Binding is the binding that was rejected.
	Binding *Binding
	// Host is where it was presented.
	Host string
	// Err is the evidence.
	Err error
}

func (e *BindingRejectedError) Error() string {
	return fmt.Sprintf("mtls: the binding with certificate %s was rejected at %s: %v", Mask(e.Binding.Thumbprint()), e.Host, e.Err)
}

// Unwrap returns the evidence.
func (e *BindingRejectedError) Unwrap() error { return e.Err }

// NonRetriable marks the error for azcore's retry policy: the same binding would be refused again.
func (*BindingRejectedError) NonRetriable() {}

// SignerError says that the private key of a binding failed to sign. crypto/tls keeps only the text of a signer's error in
// TLS 1.3; this type keeps the error.
type SignerError struct{ Err error }

func (e *SignerError) Error() string { return fmt.Sprintf("the private key failed to sign: %v", e.Err) }

// Unwrap returns the signer's error.
func (e *SignerError) Unwrap() error { return e.Err }

// NonRetriable wraps an error so that azcore's retry policy does not repeat what cannot get better.
func NonRetriable(err error) error { return nonRetriable{err} }

type nonRetriable struct{ error }

func (e nonRetriable) Unwrap() error { return e.error }
func (nonRetriable) NonRetriable()   {}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}
