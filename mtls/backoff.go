package mtls

import (
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = time.Second
	maxBackoff   = 5 * time.Minute
	jitter       = 0.1 // of the delay, either way, so that a fleet does not mint in step
)

// backoff counts how often fresh bindings were refused in a row, and says when the next one may be tried. The first refusal
// is what recovery is for; from the second on, the certificate is not what is wrong. The zero value is ready.
type backoff struct {
	refusals int
	until    time.Time
	cause    error
}

// refused counts one more refusal.
func (b *backoff) refused(now time.Time, cause error) {
	b.refusals++
	b.cause = cause
	if b.refusals < 2 {
		return
	}
	delay := maxBackoff
	if doublings := b.refusals - 2; doublings < 9 { // 1 s << 9 is more than 5 min
		delay = min(firstBackoff<<doublings, maxBackoff)
	}
	b.until = now.Add(time.Duration(float64(delay) * (1 + jitter*(2*rand.Float64()-1))))
}

// err returns why nothing may be tried now, nil if it may.
func (b *backoff) err(now time.Time) error {
	if !now.Before(b.until) {
		return nil
	}
	return &BackoffError{Refusals: b.refusals, Until: b.until, cause: b.cause}
}

// BackoffError says that no binding was minted because fresh bindings kept being refused. It unwraps to the refusal that
// came last.
type BackoffError struct {
	// Refusals is how many fresh bindings were refused in a row.
	Refusals int
	// Until is when the next mint is allowed.
	Until time.Time

	cause error
}

func (e *BackoffError) Error() string {
	return fmt.Sprintf("mtls: %d fresh bindings were refused in a row, so none is minted before %s; the last refusal: %v",
		e.Refusals, e.Until.UTC().Format(time.RFC3339), e.cause)
}

// Unwrap returns the last refusal.
func (e *BackoffError) Unwrap() error { return e.cause }

// NonRetriable marks the error for azcore's retry policy: trying again before Until cannot help.
func (*BackoffError) NonRetriable() {}
