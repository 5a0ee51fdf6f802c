package doctor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	wire "github.com/azmtls/azmtls/internal/problem"
	see "github.com/azmtls/azmtls/internal/troubleshooting"
	"github.com/azmtls/azmtls/mtls"
)

// keys asks the key provider how strong a key it would give, and why not a stronger one.
func (v *visit) keys(ctx context.Context) Finding {
	chooser, tells := v.machine.Options.KeyProvider.(mtls.Chooser)
	if !tells {
		return note("in memory (strength %s)", mtls.StrengthSoftware).
			advise(see.Keys, "No stronger keys are to be had here. IMDS may certify none of these.")
	}
	strength, passed, err := chooser.Choose(ctx)
	if err != nil {
		return problem("there would be none: %s", wire.MaskIDs(err.Error())).
			advise(see.Keys, "Mend what the key provider says.")
	}
	f := ok("strength %s", strength)
	for _, p := range passed {
		f.Details = append(f.Details, fmt.Sprintf("%s (strength %s) is passed over: %v", p.Provider, p.Strength, p.Err))
	}
	if strength < mtls.StrengthTPM {
		f.State = Note
		f = f.advise(see.Keys, "A key in memory works where IMDS certifies it, and is made anew by each process. "+
			"The details say what stands in the way of a stronger one.")
	}
	return f
}

// stored lists what the store holds.
func (v *visit) stored(ctx context.Context) Finding {
	entries, err := v.machine.Stored(ctx)
	if err != nil {
		return note("the store cannot be read: %v", err).
			advise(see.Stored, "Tokens do not need it, but each process mints a certificate of its own.")
	}
	v.entries = entries
	f := ok("%s", count(len(entries), "binding"))
	bad := 0
	for _, s := range entries {
		f.Details = append(f.Details, Describe(s, time.Now()))
		if s.Err != nil {
			bad++
		}
	}
	if bad > 0 {
		f.State = Note
		f.Summary += fmt.Sprintf(", %d of no use", bad)
		f = f.advise(see.Stored, "They do no harm: the library passes over them, and cleans up as it meets them. "+
			"azmtls purge deletes those whose alias can be read.")
	}
	return f
}

// Describe says in a line what an entry of a store is, with its identifiers masked.
func Describe(s mtls.Stored, now time.Time) string {
	alias := eventlog.Mask(s.Alias)
	if alias == "" {
		alias = "unreadable"
	}
	if s.Binding == nil {
		return fmt.Sprintf("%s: %v", alias, s.Err)
	}
	leaf := s.Binding.Certificate.Leaf
	due := renewalDue(s.Binding)
	text := fmt.Sprintf("%s: certificate %s, key %s, ends %s, renewal due %s", alias,
		eventlog.Mask(s.Binding.Thumbprint()), s.Binding.Strength(), leaf.NotAfter.UTC().Format(time.DateTime),
		due.UTC().Format(time.DateTime))
	switch {
	case s.Err != nil:
		text += fmt.Sprintf(": of no use: %v", s.Err)
	case now.After(due):
		text += ": live, to be renewed by the next call"
	default:
		text += ": live"
	}
	return text
}

// renewalDue returns when half of a binding's life is over, around which it is renewed.
func renewalDue(b *mtls.Binding) time.Time {
	begin := b.Certificate.Leaf.NotBefore
	return begin.Add(b.UsableUntil().Sub(begin) / 2)
}

// own returns the entries for the machine's identity.
func (v *visit) own(entries []mtls.Stored) []mtls.Stored {
	alias := v.machine.Alias()
	return slices.DeleteFunc(slices.Clone(entries), func(s mtls.Stored) bool { return s.Alias != alias })
}

// closeKeys releases the handles of keys that were looked at.
func closeKeys(entries []mtls.Stored) {
	for _, s := range entries {
		if s.Binding == nil {
			continue
		}
		if closer, ok := s.Binding.Certificate.PrivateKey.(io.Closer); ok {
			_ = closer.Close()
		}
	}
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
