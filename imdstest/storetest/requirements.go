package storetest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
)

const day = 24 * time.Hour

func nothingIsThere(f *fixture) {
	f.holds(f.store, f.alias, nil, "nothing was saved")
	check(f, f.store.DeleteAll(f.Context(), f.alias), "deleting nothing")
}

// What comes back is whole: it serves a TLS handshake as what was saved did.
func whatIsSavedIsLoaded(f *fixture) {
	saved := f.binding(time.Hour, 7*day)
	f.save(f.alias, saved)
	got, err := f.store.Load(f.Context(), f.alias)
	check(f, err, "Load")
	switch {
	case got.Certificate.Leaf == nil || !got.Certificate.Leaf.Equal(saved.Certificate.Leaf):
		f.Fatal("Certificate.Leaf is not the one that was saved")
	case len(got.Certificate.Certificate) == 0 || !bytes.Equal(got.Certificate.Certificate[0], saved.Certificate.Leaf.Raw):
		f.Fatal("Certificate.Certificate does not begin with the one that was saved")
	case got.Endpoint != saved.Endpoint:
		f.Fatalf("Endpoint is %q, not %q", got.Endpoint, saved.Endpoint)
	case got.ClientID != saved.ClientID:
		f.Fatalf("ClientID is %q, not %q", got.ClientID, saved.ClientID)
	case got.Strength() != saved.Strength():
		f.Fatalf("the key's strength is %s, not %s", got.Strength(), saved.Strength())
	}
	signer, ok := got.Certificate.PrivateKey.(mtls.Key)
	if !ok {
		f.Fatalf("Certificate.PrivateKey is a %T, not an mtls.Key", got.Certificate.PrivateKey)
	}
	digest := sha256.Sum256([]byte("storetest"))
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	check(f, err, "signing with the key that was loaded")
	public := saved.Certificate.Leaf.PublicKey.(*rsa.PublicKey)
	check(
		f,
		rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature),
		"verifying that signature with the certificate",
	)
}

func anotherProcessFindsIt(f *fixture) {
	b := f.binding(time.Hour, 7*day)
	f.save(f.alias, b)
	other := f.subject.Open(f.T)
	f.holds(other, f.alias, b, "another process saved it")
	check(f, insist(func() error { return other.DeleteAll(f.Context(), f.alias) }), "DeleteAll")
	f.holds(f.store, f.alias, nil, "another process deleted it")
}

// The newest is the one that began last, whichever was saved last: a process that was slow to save must not undo what
// another did.
func theNewestWins(f *fixture) {
	old, fresh := f.binding(3*day, 4*day), f.binding(time.Hour, 7*day)
	f.save(f.alias, old)
	f.save(f.alias, fresh)
	f.holds(f.store, f.alias, fresh, "it began last and was saved last")

	alias := f.newAlias(uuid.NewString())
	old, fresh = f.binding(3*day, 4*day), f.binding(time.Hour, 7*day)
	f.save(alias, fresh)
	f.save(alias, old)
	f.holds(f.store, alias, fresh, "it began last and was saved first")
}

func expiredIsNotLoaded(f *fixture) {
	expired := f.binding(8*day, -day)
	_ = f.store.Save(f.Context(), f.alias, expired) // refusing it is as good
	f.holds(f.store, f.alias, nil, "it has expired")
	b := f.binding(9*day, 7*day)
	f.save(f.alias, b)
	f.holds(f.store, f.alias, b, "an expired one began later")
}

func deletedIsDeleted(f *fixture) {
	f.save(f.alias, f.binding(3*day, 4*day))
	f.save(f.alias, f.binding(time.Hour, 7*day))
	check(f, insist(func() error { return f.store.DeleteAll(f.Context(), f.alias) }), "DeleteAll")
	f.holds(f.store, f.alias, nil, "all were deleted")
	again := f.binding(2*day, 5*day)
	f.save(f.alias, again)
	f.holds(f.store, f.alias, again, "an older one than those that were deleted was saved after that")
}

// Each alias has its own, whatever it looks like, and loses it alone.
func aliasesAreStrangers(f *fixture) {
	id := uuid.NewString()
	aliases := []string{
		id, id + "#att=0", id + "#att=1", strings.ToUpper(id), id + "=b=c", "../" + id, id + "/", "/" + id + "%2f*?",
		"Ünïcödé-身份-🔑-" + id, id + strings.Repeat("/very-long", 400),
	}
	saved := map[string]*mtls.Binding{}
	for i, alias := range aliases {
		saved[f.newAlias(alias)] = f.binding(time.Duration(1+i)*time.Hour, 7*day)
		f.save(alias, saved[alias])
	}
	for i, gone := range aliases {
		check(f, insist(func() error { return f.store.DeleteAll(f.Context(), gone) }), "DeleteAll")
		f.holds(f.store, gone, nil, fmt.Sprintf("alias %.60q was deleted", gone))
		for _, alias := range aliases[i+1:] {
			f.holds(f.store, alias, saved[alias], fmt.Sprintf("alias %.60q was deleted, %.60q was not", gone, alias))
		}
	}
}

func whoGaveUpChangesNothing(f *fixture) {
	b := f.binding(3*day, 4*day)
	f.save(f.alias, b)
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	_, err := f.store.Load(ctx, f.alias)
	for call, err := range map[string]error{
		"Load":      err,
		"Save":      f.store.Save(ctx, f.alias, f.binding(time.Hour, 7*day)),
		"DeleteAll": f.store.DeleteAll(ctx, f.alias),
	} {
		if !errors.Is(err, context.Canceled) {
			f.Fatalf("%s returned %v where its context was cancelled", call, err)
		}
	}
	f.holds(f.store, f.alias, b, "only cancelled calls came after it")
}

func whatIsNoBindingIsRefused(f *fixture) {
	good := f.binding(time.Hour, 7*day)
	keyless := *good
	keyless.Certificate.PrivateKey = nil
	leafless := *good
	leafless.Certificate = tls.Certificate{PrivateKey: f.key}
	for name, b := range map[string]*mtls.Binding{
		"nil": nil, "an empty binding": {}, "one without a key": &keyless, "one without a certificate": &leafless,
	} {
		if err := f.store.Save(f.Context(), f.alias, b); err == nil {
			f.Fatalf("Save took %s", name)
		}
		f.holds(f.store, f.alias, nil, name+" was refused")
	}
}

// Goroutines with aliases of their own find what they saved, and with one that they share they find something that
// works.
func manyAtOnce(f *fixture) {
	const goroutines, rounds = 8, 10
	bindings := make([]*mtls.Binding, goroutines)
	for i := range bindings {
		bindings[i] = f.binding(time.Duration(1+i)*time.Hour, 7*day)
	}
	var all sync.WaitGroup
	failures := make(chan error, goroutines)
	for _, b := range bindings {
		own := f.newAlias(uuid.NewString())
		store := f.subject.Open(f.T)
		all.Go(func() {
			for range rounds {
				if err := round(f.Context(), store, own, f.alias, b); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		f.Error(err)
	}
}

func round(ctx context.Context, store mtls.Store, own, shared string, b *mtls.Binding) error {
	if err := insist(func() error { return store.Save(ctx, own, b) }); err != nil {
		return fmt.Errorf("saving: %w", err)
	}
	switch got, err := store.Load(ctx, own); {
	case err != nil:
		return fmt.Errorf("loading what was saved a moment ago: %w", err)
	case got.Thumbprint() != b.Thumbprint():
		return errors.New("another binding was loaded than the one that was saved under this alias")
	}
	_ = store.Save(ctx, shared, b)
	if got, err := store.Load(ctx, shared); err == nil && (got.Certificate.Leaf == nil || got.Endpoint != endpoint) {
		return errors.New("a binding of the alias that all share is not whole")
	}
	_ = store.DeleteAll(ctx, shared)
	if err := insist(func() error { return store.DeleteAll(ctx, own) }); err != nil {
		return fmt.Errorf("deleting: %w", err)
	}
	if _, err := store.Load(ctx, own); !errors.Is(err, mtls.ErrNotFound) {
		return fmt.Errorf("after all were deleted, loading returned: %v", err)
	}
	return nil
}

// whatIsListed holds a store that is an mtls.Lister to it: it tells what Load would return, under whole aliases, and
// what it shows stays as it is.
func whatIsListed(f *fixture) {
	lister, ok := f.store.(mtls.Lister)
	if !ok {
		f.Skip("the store is no mtls.Lister")
	}
	other := f.newAlias(f.alias + "0")
	saved := map[string]*mtls.Binding{f.alias: f.binding(time.Hour, 7*day), other: f.binding(time.Hour, 3*time.Hour)}
	for alias, b := range saved {
		f.save(alias, b)
	}
	for range 2 {
		listed, err := lister.List(f.Context())
		check(f, err, "List")
		found := map[string]mtls.Stored{}
		for _, s := range listed {
			if saved[s.Alias] != nil {
				found[s.Alias] = s
			}
		}
		for alias, b := range saved {
			s := found[alias]
			switch {
			case s.Binding == nil || s.Binding.Thumbprint() != b.Thumbprint():
				f.Fatalf("List shows %s under an alias that %s was saved under", short(s.Binding), short(b))
			case s.Binding.Endpoint != b.Endpoint || s.Binding.ClientID != b.ClientID:
				f.Fatal("List shows another endpoint or client id than was saved")
			}
			if _, err := f.store.Load(f.Context(), alias); (err == nil) != (s.Err == nil) {
				f.Fatalf("List says %v of an entry of which Load says %v", s.Err, err)
			}
		}
	}
	f.holds(f.store, f.alias, saved[f.alias], "after List")
}
