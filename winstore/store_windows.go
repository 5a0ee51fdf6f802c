package winstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/remaining"
	"github.com/azmtls/azmtls/mtls"
	"golang.org/x/sys/windows"
)

// Load returns the newest binding of the alias, by NotBefore, or [mtls.ErrNotFound]: more than 24 hours must be left of
// it, its token window must be open and its key must sign. A certificate whose key is gone, dead or another one than it
// was issued for fails every handshake and is deleted. The private key of the binding implements [io.Closer].
func (Store) Load(ctx context.Context, alias string) (*mtls.Binding, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return load(ctx, alias, time.Now())
}

// Save stores a binding under the alias, unless Load would give another one that is there, and deletes the alias's
// expired ones.
func (Store) Save(ctx context.Context, alias string, b *mtls.Binding) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return save(alias, b, time.Now())
}

// DeleteAll deletes the certificates that carry this alias. Their keys stay: they may serve others.
func (Store) DeleteAll(ctx context.Context, alias string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return change(alias, func(m *my, own entries) error {
		return m.removeAll(own, func(entry) bool { return true })
	})
}

func load(ctx context.Context, alias string, now time.Time) (*mtls.Binding, error) {
	own, err := readMy(alias)
	if err != nil {
		return nil, err
	}
	defer own.free()
	var orphans [][]byte
	defer func() { removeOrphans(ctx, alias, orphans) }()
	for _, c := range candidates(own, now) {
		b, err := c.binding()
		switch {
		case err == nil:
			return b, nil
		case errors.Is(err, errOrphan):
			orphans = append(orphans, c.leaf.Raw)
		}
		eventlog.Writef(ctx, eventlog.Recovery, "a stored certificate of %s is skipped: %v", eventlog.Mask(alias), err)
	}
	return nil, mtls.ErrNotFound
}

// candidate is a stored certificate with enough time left.
type candidate struct {
	entry
	leaf *x509.Certificate
}

// candidates returns the certificates that have enough time left: the newest first, of those the one good for longest.
func candidates(own entries, now time.Time) []candidate {
	var usable []candidate
	for _, e := range own {
		leaf, err := e.parse()
		if err == nil && remaining.Vet(leaf.NotAfter, unbound(leaf).UsableUntil(), now) == nil {
			usable = append(usable, candidate{e, leaf})
		}
	}
	slices.SortStableFunc(usable, func(a, b candidate) int { return newestFirst(a.leaf, b.leaf) })
	return usable
}

func newestFirst(a, b *x509.Certificate) int {
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), b.NotAfter.Compare(a.NotAfter))
}

// errOrphan marks a certificate that can never work again: its key is gone, dead or not its own.
var errOrphan = errors.New("it is orphaned")

func (c candidate) binding() (*mtls.Binding, error) {
	k, err := acquireKey(c.context)
	switch {
	case err != nil:
		return nil, noKey(err)
	case !k.public.Equal(c.leaf.PublicKey):
		_ = k.Close()
		return nil, fmt.Errorf("%w: its container has another key", errOrphan)
	}
	b, err := mtls.NewBinding(c.leaf, k, c.endpoint, strings.ToLower(c.leaf.Subject.CommonName))
	if err != nil {
		_ = k.Close()
		return nil, err
	}
	return b, nil
}

// noKey says what it means for a certificate that its key failed with this.
func noKey(err error) error {
	if dead(err) || is(err, windows.NTE_BAD_ALGID) { // the latter: a provider that knows no SHA-256
		return fmt.Errorf("%w: %w", errOrphan, err)
	}
	return fmt.Errorf("its key cannot be used now: %w", err)
}

// removeOrphans deletes exactly these certificates. That it fails does no harm but to the next who comes upon them.
func removeOrphans(ctx context.Context, alias string, orphans [][]byte) {
	if len(orphans) == 0 {
		return
	}
	err := change(alias, func(m *my, own entries) error {
		return m.removeAll(own, func(e entry) bool {
			der := e.der()
			return slices.ContainsFunc(orphans, func(orphan []byte) bool { return bytes.Equal(orphan, der) })
		})
	})
	if err != nil {
		eventlog.Writef(ctx, eventlog.Recovery, "deleting orphaned certificates of %s: %v", eventlog.Mask(alias), err)
	}
}

func save(alias string, b *mtls.Binding, now time.Time) error {
	if b == nil || b.Certificate.Leaf == nil {
		return errors.New("winstore: there is no certificate to store")
	}
	name, err := encodeName(alias, b.Endpoint)
	if err != nil {
		return err
	}
	k, ok := b.Certificate.PrivateKey.(*key)
	if !ok || k.container.name == "" {
		return fmt.Errorf("winstore: only a binding whose private key Windows keeps can be stored; "+
			"use winstore.Keys as KeyProvider, or mtls.NoStore as Store: %w", mtls.ErrKeyNotKept)
	}
	leaf := b.Certificate.Leaf
	return change(alias, func(m *my, own entries) error {
		if !own.supersede(leaf, now) {
			if err := m.removeAll(own, func(e entry) bool { return bytes.Equal(e.der(), leaf.Raw) }); err != nil {
				return err
			}
			if err := m.add(leaf.Raw, name, k.container); err != nil {
				return err
			}
		}
		return m.removeAll(own, func(e entry) bool {
			stored, err := e.parse()
			return err == nil && !stored.NotAfter.After(now)
		})
	})
}

// supersede reports that Load would give one of the entries, and not the certificate.
func (all entries) supersede(leaf *x509.Certificate, now time.Time) bool {
	for _, c := range candidates(all, now) {
		if newestFirst(leaf, c.leaf) < 0 {
			return false
		}
		b, err := c.binding()
		if err == nil {
			_ = b.Certificate.PrivateKey.(*key).Close()
			return true
		}
	}
	return false
}

// unbound returns a binding of which only the certificate is known.
func unbound(leaf *x509.Certificate) *mtls.Binding {
	return &mtls.Binding{Certificate: tls.Certificate{Leaf: leaf}}
}

// change runs f on the store and the alias's entries in it, while no other process changes those, and commits.
func change(alias string, f func(m *my, own entries) error) error {
	err := withLock(mutexNames(alias), lockWait, func() error {
		return changeMy(func(m *my) error {
			own, err := m.of(alias)
			if err != nil {
				return err
			}
			defer own.free()
			return f(m, own)
		})
	})
	if err != nil {
		return fmt.Errorf(`winstore: changing CurrentUser\My: %w`, err)
	}
	return nil
}

var _ mtls.Store = Store{}
