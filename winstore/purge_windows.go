package winstore

import (
	"context"
	"strings"

	"github.com/azmtls/azmtls/internal/eventlog"
	"golang.org/x/sys/windows"
)

// issuer is in the issuer's name of every certificate that IMDS v2 issues.
const issuer = "managedidentitysnissuer.login.microsoft.com"

// purge deletes the certificates of managed identities that were issued for the key that had the tier's name before:
// they have no key any more. Whose key demonstrably lives elsewhere is kept. Failure does no harm, since Load would
// skip them.
func purge(ctx context.Context, t tier) {
	removed, err := purgeIssued(t)
	if err != nil {
		eventlog.Writef(
			ctx,
			eventlog.Recovery,
			"deleting the certificates of the key that %s replaces: %v",
			t.name,
			err,
		)
	}
	if removed > 0 {
		eventlog.Writef(ctx, eventlog.Recovery, "deleted %d certificates of the key that %s replaces", removed, t.name)
	}
}

func purgeIssued(t tier) (removed int, err error) {
	err = changeMy(func(m *my) error {
		all, err := m.snapshot()
		if err != nil {
			return err
		}
		defer all.free()
		return m.removeAll(all, func(e entry) bool {
			goes := e.issuedFor(t)
			if goes {
				removed++
			}
			return goes
		})
	})
	return removed, err
}

// issuedFor reports that a certificate is one of IMDS v2 and that its key is the tier's, or none.
func (e entry) issuedFor(t tier) bool {
	leaf, err := e.parse()
	if err != nil || !strings.Contains(strings.ToLower(leaf.Issuer.String()), issuer) {
		return false
	}
	c, err := keyContainer(e.context)
	return is(err, windows.CRYPT_E_NOT_FOUND) || err == nil && c.name == t.name && c.provider == t.provider
}
