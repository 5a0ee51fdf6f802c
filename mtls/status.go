package mtls

import (
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
)

// Status is what a [Cache] knows of one identity at a moment.
type Status struct {
	// Alias is the masked name of the identity in memory and store.
	Alias string `json:"alias"`
	// Binding is the one in memory, nil if there is none: before the first token, and between an eviction and the
	// next mint.
	Binding *BindingStatus `json:"binding"`
	// TokenBudget rations evictions on the word of the token endpoint, with mints that came to nothing;
	// ResourceBudget those on the word of all resources together.
	TokenBudget    BudgetStatus `json:"token_budget"`
	ResourceBudget BudgetStatus `json:"resource_budget"`
	// PausedUntil is until when IMDS asked to be left alone. It is zero if it did not.
	PausedUntil time.Time `json:"paused_until,omitzero"`
}

// BindingStatus describes a binding without disclosing it.
type BindingStatus struct {
	// Thumbprint is the masked x5t#S256 of the certificate.
	Thumbprint string `json:"thumbprint"`
	// Strength is that of the key.
	Strength BindingStrength `json:"strength"`
	// Minted says that this process had the binding issued; otherwise it was loaded from the store.
	Minted bool `json:"minted"`
	// NotAfter is the end of the certificate, UsableUntil that of its use for tokens.
	NotAfter    time.Time `json:"not_after"`
	UsableUntil time.Time `json:"usable_until"`
	// RenewalDue is when the first call has it renewed.
	RenewalDue time.Time `json:"renewal_due"`
	// Kept says that it was refused and is presented on, since no eviction was left in the budget.
	Kept bool `json:"kept,omitempty"`
}

// BudgetStatus is how much is left of a budget.
type BudgetStatus struct {
	// Available says that there is a unit: one eviction and its mint.
	Available bool `json:"available"`
	// Next is when there is one again. It is zero if there is one.
	Next time.Time `json:"next,omitzero"`
}

// Status says what there is of the source, without I/O. Times are those of the wall clock.
func (c *Cache) Status(src Source) Status {
	s := c.entry(src).status()
	s.Alias = eventlog.Mask(src.Alias)
	return s
}

func (e *entry) status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	boot, wall := e.clock.Boot(), e.clock.Wall()
	s := Status{TokenBudget: e.token.status(boot, wall), ResourceBudget: e.resources.status(boot, wall)}
	if pause, _ := e.imds.left(boot); pause > 0 {
		s.PausedUntil = wall.Add(pause)
	}
	b := e.current.Load()
	if b == nil {
		return s
	}
	s.Binding = &BindingStatus{
		Thumbprint:  eventlog.Mask(b.Thumbprint()),
		Strength:    b.Strength(),
		Minted:      b.admitted.minted,
		NotAfter:    b.Certificate.Leaf.NotAfter,
		UsableUntil: b.UsableUntil(),
		RenewalDue:  wall.Add(max(b.renewalIn(), e.renewal.next-boot)),
		Kept:        e.kept.binding != nil && e.kept.binding.is(b) && !b.wasAccepted(),
	}
	return s
}

func (b *budget) status(boot time.Duration, wall time.Time) BudgetStatus {
	if b.available(boot) {
		return BudgetStatus{Available: true}
	}
	return BudgetStatus{Next: wall.Add(b.next - boot)}
}
