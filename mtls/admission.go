package mtls

import (
	"context"
	"crypto"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"time"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/clock"
)

// admission is what a Cache knows of a binding that it gave out: its serial, so to speak. IMDS may issue the same
// certificate twice; the admissions differ. Copies of a binding share it.
type admission struct {
	thumbprint string
	clock      *clock.Clock
	acquired   clock.Instant
	minted     bool          // not loaded from a store
	life       time.Duration // what was left of it then
	renewAt    float64       // the share of its whole life that is left when it is renewed
	accepted   atomic.Bool   // somebody took it
	evicted    atomic.Bool
	holder     *holder // nil: no Cache has taken it in
}

// admit makes the binding one that a Cache gives out. It must come before the binding is shared.
func (b *Binding) admit(c *clock.Clock) {
	b.admitted = nil
	b.admitted = &admission{thumbprint: b.Thumbprint(), clock: c, acquired: c.Now(), life: b.life(c.Wall())}
	b.admitted.renewAt = 0.5 * clock.Vary()
}

// life returns how long the binding is good for, by the clock of IMDS where it has one. Without that our own clock
// stands in, and judges nothing: a certificate that it calls expired gets its whole life, and Entra the last word.
func (b *Binding) life(wall time.Time) time.Duration {
	if !b.Issued.IsZero() {
		return b.UsableUntil().Sub(b.Issued)
	}
	if left := b.UsableUntil().Sub(wall); left > 0 {
		return left
	}
	return b.UsableUntil().Sub(b.Certificate.Leaf.NotBefore)
}

// maxMargin is how long before its end a binding is used no more for tokens, at the most.
const maxMargin = 5 * time.Minute

// usable reports whether the binding is good for a token now: until 5 minutes before its end, or a tenth of what it had
// when it was issued if that is less.
func (b *Binding) usable() bool {
	had := b.UsableUntil().Sub(b.Certificate.Leaf.NotBefore)
	if !b.Issued.IsZero() {
		had = b.UsableUntil().Sub(b.Issued) // IMDS may date a certificate back by more than that
	}
	return b.admitted.left() > min(maxMargin, had/10)
}

// Remaining returns how long the certificate is still valid, by the clock of IMDS where that is known: ours may be
// wrong. It is that of NotAfter for a binding that no [Cache] gave out.
func (b *Binding) Remaining() time.Duration {
	leaf := b.Certificate.Leaf
	switch {
	case leaf == nil:
		return 0
	case b.admitted == nil:
		return time.Until(leaf.NotAfter)
	}
	return b.admitted.left() + leaf.NotAfter.Sub(b.UsableUntil())
}

// left returns how long the binding is still good for tokens.
func (a *admission) left() time.Duration { return a.life - a.clock.Since(a.acquired) }

// is reports whether both are the same binding: one that a Cache gave out once.
func (b *Binding) is(other *Binding) bool {
	if b.admitted == nil || other.admitted == nil {
		return b.Thumbprint() == other.Thumbprint()
	}
	return b.admitted == other.admitted
}

// Evicted reports whether a [Cache] has evicted the binding since it gave it out. Bound tokens of an evicted binding
// are worthless: they are bound to its certificate.
func (b *Binding) Evicted() bool { return b.admitted != nil && b.admitted.evicted.Load() }

// markEvicted tells all who hold the binding that it is gone.
func (b *Binding) markEvicted() {
	if b.admitted != nil {
		b.admitted.evicted.Store(true)
	}
}

// markAccepted notes that somebody took the binding.
func (b *Binding) markAccepted() {
	if b.admitted != nil && !b.admitted.accepted.Load() {
		b.admitted.accepted.Store(true)
	}
}

func (b *Binding) wasAccepted() bool { return b.admitted != nil && b.admitted.accepted.Load() }

func (b *Binding) clock() *clock.Clock {
	if b.admitted == nil {
		return nil
	}
	return b.admitted.clock
}

// sign asks the key for one signature. A key that takes longer than ctx lets it is given up on.
func (b *Binding) sign(ctx context.Context) error {
	signer, ok := b.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the binding has no private key")
	}
	digest := sha256.Sum256([]byte("azmtls liveness probe"))
	signed := make(chan error, 1)
	go func() {
		signed <- callers.Guard("the key", func() error {
			_, err := signer.Sign(cryptorand.Reader, digest[:], crypto.SHA256)
			return err
		})
	}()
	select {
	case err := <-signed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
