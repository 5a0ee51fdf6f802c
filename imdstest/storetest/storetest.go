// Package storetest tests implementations of [mtls.Store]: it holds them to what azmtls relies on. It is to them what
// testing/fstest is to file systems.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
)

// Subject is a store under test.
type Subject struct {
	// Open returns the store as a process finds it. Stores of several calls stand for several processes: they hold the
	// same.
	Open func(t *testing.T) mtls.Store
	// Key returns a key that the store can keep bindings of. Nil: any key will do, and one in memory is made.
	Key func(t *testing.T) mtls.Key
}

// Run tests the store. It uses aliases that nobody else has, and leaves nothing behind.
func Run(t *testing.T, s Subject) {
	var key mtls.Key
	if s.Key != nil {
		key = s.Key(t)
	} else {
		var err error
		key, err = mtls.SoftwareKeys{}.Key(t.Context())
		check(t, err, "making a key")
	}
	issuer := newIssuer(t)
	for _, test := range []struct {
		name string
		run  func(*fixture)
	}{
		{"nothing is there", nothingIsThere},
		{"what is saved is loaded", whatIsSavedIsLoaded},
		{"another process finds it", anotherProcessFindsIt},
		{"the newest wins", theNewestWins},
		{"an expired one is not loaded", expiredIsNotLoaded},
		{"deleted is deleted", deletedIsDeleted},
		{"aliases are strangers to each other", aliasesAreStrangers},
		{"who gave up changes nothing", whoGaveUpChangesNothing},
		{"what is no binding is refused", whatIsNoBindingIsRefused},
		{"what is listed", whatIsListed},
		{"many at once", manyAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{T: t, subject: s, store: s.Open(t), key: key, issuer: issuer}
			f.alias = f.newAlias(uuid.NewString() + "#att=0")
			test.run(f)
		})
	}
}

// fixture is a test's part of the store.
type fixture struct {
	*testing.T
	subject Subject
	store   mtls.Store
	key     mtls.Key
	issuer  *issuer
	alias   string
}

// newAlias returns the alias; what is stored under it is deleted when the test ends.
func (f *fixture) newAlias(alias string) string {
	f.Cleanup(func() {
		if err := f.store.DeleteAll(context.Background(), alias); err != nil {
			f.Errorf("deleting what the test stored: %v", err)
		}
	})
	return alias
}

// binding returns a binding that began so long ago and will end in so long.
func (f *fixture) binding(age, left time.Duration) *mtls.Binding {
	f.Helper()
	b, err := f.issuer.binding(f.key, age, left)
	check(f, err, "making a binding")
	return b
}

func (f *fixture) save(alias string, b *mtls.Binding) {
	f.Helper()
	check(f, insist(func() error { return f.store.Save(f.Context(), alias, b) }), "Save")
}

// holds fails the test unless Load returns this binding, or ErrNotFound for nil.
func (f *fixture) holds(store mtls.Store, alias string, want *mtls.Binding, why string) {
	f.Helper()
	got, err := store.Load(f.Context(), alias)
	switch {
	case want == nil && !errors.Is(err, mtls.ErrNotFound):
		f.Fatalf("%s: Load returned %s and error %v where it must return mtls.ErrNotFound", why, short(got), err)
	case want != nil && err != nil:
		f.Fatalf("%s: Load returned the error %v where it must return %s", why, err, short(want))
	case want != nil && got.Thumbprint() != want.Thumbprint():
		f.Fatalf("%s: Load returned %s where it must return %s", why, short(got), short(want))
	}
}

func short(b *mtls.Binding) string {
	if b == nil {
		return "no binding"
	}
	return "binding " + b.Thumbprint()[:6]
}

func check(t testing.TB, err error, what string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// insist repeats a change that did not get its turn: a store is best effort, and others may be at it.
func insist(change func() error) (err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if err = change(); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
