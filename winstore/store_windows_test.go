package winstore

import (
	"context"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

const day = 24 * time.Hour

// What is saved is what is loaded, with a key that signs, and under the name that MSAL.NET looks for.
func TestSaveThenLoad(t *testing.T) {
	f := newFixture(t)
	saved := f.bindingFor(7 * day)
	require.NoError(t, Store{}.Save(t.Context(), f.alias, saved))
	loaded, err := Store{}.Load(t.Context(), f.alias)
	require.NoError(t, err)
	require.Equal(t, saved.Thumbprint(), loaded.Thumbprint())
	require.Equal(t, testEndpoint, loaded.Endpoint)
	require.Equal(t, clientID, loaded.ClientID)
	require.Equal(t, f.key.container, loaded.Certificate.PrivateKey.(*key).container, "so that it can be saved again")

	require.NoError(t, Store{}.DeleteAll(t.Context(), f.alias))
	_, err = Store{}.Load(t.Context(), f.alias)
	require.ErrorIs(t, err, mtls.ErrNotFound)
	require.NoError(t, Store{}.DeleteAll(t.Context(), f.alias), "deleting nothing is no error")
}

func TestNewestWins(t *testing.T) {
	f := newFixture(t)
	first, last := f.bindingFor(3*day), f.bindingFor(9*day)
	f.save(first)
	f.save(last)
	f.plantAs(f.alias, f.bindingFor(5*day))
	require.Len(t, f.stored(f.alias), 3)
	require.Equal(t, last.Thumbprint(), f.loaded())
}

func TestSaveSkipsOlderAndEqual(t *testing.T) {
	f := newFixture(t)
	newest := f.bindingFor(9 * day)
	f.save(newest)
	f.save(f.bindingFor(8 * day))
	f.save(f.bindingFor(9 * day))
	f.save(newest)
	require.Equal(t, []string{newest.Thumbprint()}, f.stored(f.alias))
}

// One that looks better and cannot work is no reason not to store a fresh certificate: it would be the only one that
// works.
func TestSaveBesideBadOnes(t *testing.T) {
	otherKey := persistedKey(t)
	for name, plant := range map[string]func(*fixture){
		"no key":    func(f *fixture) { f.plantIn(f.alias, f.bindingFor(9*day), container{}) },
		"key gone":  func(f *fixture) { f.plantIn(f.alias, f.bindingFor(9*day), Nowhere) },
		"other key": func(f *fixture) { f.plantIn(f.alias, f.bindingFor(9*day), otherKey.container) },
		"no client": func(f *fixture) { f.plantCertificate(f.certificate(f.key.Public(), "not-a-guid", 9*day), testEndpoint) },
		"bad place": func(f *fixture) { f.plantCertificate(f.bindingFor(9*day).Certificate.Leaf, "http://host/tenant") },
		"lives longer, but is older": func(f *fixture) {
			leaf, err := f.authority.issueFrom(f.key.Public(), clientID, f.now.Add(-40*day), f.now.Add(9*day))
			require.NoError(f, err)
			f.plantCertificate(leaf, testEndpoint)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			plant(f)
			fresh := f.bindingFor(7 * day)
			f.save(fresh)
			require.Contains(t, f.stored(f.alias), fresh.Thumbprint())
			require.Equal(t, fresh.Thumbprint(), f.loaded())
		})
	}
}

// The same certificate may lie there without its key, or with the wrong one.
func TestSaveMendsTheLinkToTheKey(t *testing.T) {
	f := newFixture(t)
	b := f.bindingFor(9 * day)
	f.plantIn(f.alias, b, Nowhere)
	f.save(b)
	require.Equal(t, []string{b.Thumbprint()}, f.stored(f.alias))
	require.Equal(t, b.Thumbprint(), f.loaded())
}

// The client id is taken from the CN: one that is none is no binding, and the next best is.
func TestLoadSkipsCommonNameThatIsNoGUID(t *testing.T) {
	f := newFixture(t)
	good := f.bindingFor(3 * day)
	f.save(good)
	name, err := encodeName(f.alias, testEndpoint)
	require.NoError(t, err)
	f.plant(name, f.certificate(f.key.Public(), "not-a-guid", 9*day), f.key.container)
	require.Equal(t, good.Thumbprint(), f.loaded())
	require.Len(t, f.stored(f.alias), 2, "it is not ours to delete: its key works")
}

// The endpoint of a stored certificate is where it is presented: it is checked like one that IMDS names. Both forms
// that IMDS gives are taken; MSAL.NET stores them as they come.
func TestLoadChecksTheEndpoint(t *testing.T) {
	for stored, want := range map[string]string{
		"https://host/tenant":  "https://host/tenant",
		"https://host/tenant/": "https://host/tenant",
		"HTTPS://host:8443/t":  "https://host:8443/t",
		"host/tenant":          "https://host/tenant",
		"host:8443/tenant":     "https://host:8443/tenant",
		"http://host/tenant":   "",
		"ftp://host/tenant":    "",
		"https:///tenant":      "",
		"https://host:/tenant": "",
		"host:/tenant":         "",
		"https://u@host/t":     "",
		"https://u:p@host/t":   "",
		"https://host/t?q=1":   "",
		"https://host/t?":      "",
		"https://host/t#f":     "",
		"https://ho st/t":      "",
	} {
		t.Run(stored, func(t *testing.T) {
			f := newFixture(t)
			f.plantCertificate(f.bindingFor(9*day).Certificate.Leaf, stored)
			b, err := load(t.Context(), f.alias, f.now)
			if want == "" {
				require.ErrorIs(t, err, mtls.ErrNotFound)
				return
			}
			require.NoError(t, err)
			defer b.Certificate.PrivateKey.(*key).Close()
			require.Equal(t, want, b.Endpoint)
		})
	}
}

func TestLoadWants24Hours(t *testing.T) {
	f := newFixture(t)
	b := f.bindingFor(7 * day)
	f.save(b)
	limit := b.Certificate.Leaf.NotAfter.Add(-day)
	require.Empty(t, f.loadedAt(limit), "exactly 24 hours are too few")
	require.Equal(t, b.Thumbprint(), f.loadedAt(limit.Add(-time.Second)), "a second more is enough")
	require.NotEmpty(t, f.stored(f.alias), "what is too old to load has not expired")
}

func TestLoadWantsOpenTokenWindow(t *testing.T) {
	f := newFixture(t)
	end := f.now.Add(2 * day).UTC().Truncate(time.Second)
	value, err := asn1.MarshalWithParams(end, "generalized")
	require.NoError(t, err)
	window := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 90, 2, 1}, Value: value}
	leaf := f.certificate(f.key.Public(), clientID, 9*day, window)
	b, err := mtls.NewBinding(leaf, f.key, testEndpoint, clientID)
	require.NoError(t, err)
	f.save(b)
	require.Equal(t, b.Thumbprint(), f.loadedAt(end.Add(-time.Second)))
	require.Empty(t, f.loadedAt(end))

	fresh := f.bindingFor(7 * day)
	f.save(fresh)
	require.NotContains(t, f.stored(f.alias), fresh.Thumbprint(), "the one that is there is good for longer")
	require.NoError(t, save(f.alias, fresh, end))
	require.Equal(t, fresh.Thumbprint(), f.loadedAt(end), "the one that is there gets no tokens any more")
}

// Reading goes on without its turn when another process hangs in its own.
func TestLoadOutOfTurn(t *testing.T) {
	f := newFixture(t)
	b := f.bindingFor(9 * day)
	f.save(b)
	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- inTurn(turnName, turnWait, func() error {
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	require.Equal(t, b.Thumbprint(), f.loaded())
	require.ErrorIs(t, save(f.alias, f.bindingFor(10*day), f.now), errBusy)
	close(release)
	require.NoError(t, <-done)
}

func TestSavePrunesOnlyExpired(t *testing.T) {
	f := newFixture(t)
	other := f.newAlias(uuid.NewString())
	f.plantAs(f.alias, f.bindingFor(-day))
	f.plantAs(f.alias, f.bindingFor(-time.Second))
	f.plantAs(other, f.bindingFor(-day))
	young := f.bindingFor(time.Hour)
	f.plantAs(f.alias, young)
	fresh := f.bindingFor(9 * day)
	f.save(fresh)
	require.ElementsMatch(t, []string{young.Thumbprint(), fresh.Thumbprint()}, f.stored(f.alias))
	require.Len(t, f.stored(other), 1, "the expired of others are theirs to prune")

	f.plantAs(f.alias, f.bindingFor(-day))
	f.save(young)
	require.Len(t, f.stored(f.alias), 2, "pruned also when there is nothing to add")
}

// A certificate without its key is worse than none: whoever loads it fails every handshake.
func TestSaveRefusesKeyThatIsNotKept(t *testing.T) {
	f := newFixture(t)
	inMemory, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	b, err := mtls.NewBinding(f.certificate(inMemory.Public(), clientID, 9*day), inMemory, testEndpoint, clientID)
	require.NoError(t, err)
	require.ErrorIs(t, save(f.alias, b, f.now), mtls.ErrKeyNotKept)
	b.Certificate.PrivateKey = nil
	require.ErrorContains(t, save(f.alias, b, f.now), "private key")
	require.Error(t, save(f.alias, &mtls.Binding{}, f.now))
	require.Error(t, save(f.alias, nil, f.now))
	require.Empty(t, f.stored(f.alias))
}

// A binding is found under its own alias only, whatever that looks like, and goes alone.
func TestAliases(t *testing.T) {
	f := newFixture(t)
	id := uuid.NewString()
	aliases := []string{
		id,
		id + "#att=0",
		id + "#att=1",
		strings.ToUpper(id),
		id + "=b=c",
		"ep=" + id,
		"Ünïcödé-身份-🔑-" + id,
		id + strings.Repeat("/very-long", 400),
	}
	bindings := map[string]string{}
	for i, alias := range aliases {
		b := f.bindingFor(time.Duration(3+i) * day)
		bindings[f.newAlias(alias)] = b.Thumbprint()
		require.NoError(t, save(alias, b, f.now))
	}
	for i, gone := range aliases {
		for _, alias := range aliases[i:] {
			require.Equal(t, []string{bindings[alias]}, f.stored(alias), "%.60q", alias)
			f.alias = alias
			require.Equal(t, bindings[alias], f.loaded())
		}
		require.NoError(t, Store{}.DeleteAll(t.Context(), gone))
		require.Empty(t, f.stored(gone))
	}
	require.ErrorContains(t, save("a|b", f.bindingFor(9*day), f.now), "'|'")
}

// A certificate is never taken from the alias, or the program, that stored it.
func TestSaveLeavesWhatIsThere(t *testing.T) {
	f := newFixture(t)
	b := f.bindingFor(9 * day)
	f.save(b)
	second := f.newAlias(uuid.NewString())
	require.ErrorContains(t, save(second, b, f.now), "CRYPT_E_EXISTS")
	require.Equal(t, b.Thumbprint(), f.loaded())

	foreign := f.bindingFor(8 * day)
	f.plant("My own certificate", foreign.Certificate.Leaf, f.key.container)
	require.Error(t, save(second, foreign, f.now))
	require.NoError(t, Store{}.DeleteAll(t.Context(), second))
	require.Equal(t, 1, count(t, foreign.Thumbprint()))
}

// A certificate whose key is gone, or is another one, fails every handshake: it is skipped and goes, and nothing else
// does.
func TestLoadRemovesOrphans(t *testing.T) {
	otherKey := persistedKey(t)
	for name, test := range map[string]container{
		"no key":                   {},
		"key gone":                 {provider: capiProvider, name: "azmtls-test-nowhere", providerType: 24, keySpec: 1},
		"CNG key gone":             {provider: softwareProvider, name: "azmtls-test-nowhere"},
		"provider gone":            {provider: "Provider of nobody", name: "azmtls-test-nowhere"},
		"container of another key": otherKey.container,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			good := f.bindingFor(3 * day)
			f.save(good)
			orphan := f.bindingFor(9 * day)
			f.plantIn(f.alias, orphan, test)
			foreign := f.bindingFor(9 * day)
			f.plant("not of MSAL", foreign.Certificate.Leaf, test)
			require.Equal(t, good.Thumbprint(), f.loaded())
			require.Equal(t, []string{good.Thumbprint()}, f.stored(f.alias))
			require.Equal(t, 1, count(t, foreign.Thumbprint()))
		})
	}
}

// A certificate whose key cannot be used at this moment is not deleted for it.
func TestTroubleOrphansNothing(t *testing.T) {
	for _, code := range troubles {
		require.NotErrorIs(t, noKey(failed("F", code)), errOrphan, "%s", failed("F", code))
	}
	for _, code := range deaths {
		require.ErrorIs(t, noKey(failed("F", code)), errOrphan, "%s", failed("F", code))
	}
}

// An orphan that cannot be deleted now is skipped all the same, and deleted later.
func TestBusyLock(t *testing.T) {
	f := newFixture(t)
	orphan := f.bindingFor(9 * day)
	f.plantIn(f.alias, orphan, container{})
	b := f.bindingFor(9 * day)

	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- withLock(mutexNames(f.alias), lockWait, func() error {
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	require.ErrorIs(t, save(f.alias, b, f.now), errBusy)
	require.ErrorIs(t, Store{}.DeleteAll(t.Context(), f.alias), errBusy)
	require.Empty(t, f.loaded(), "loading takes no lock")
	require.Equal(t, []string{orphan.Thumbprint()}, f.stored(f.alias))
	close(release)
	require.NoError(t, <-done)

	require.Empty(t, f.loaded())
	require.Empty(t, f.stored(f.alias))
	f.save(b)
	require.Equal(t, b.Thumbprint(), f.loaded())
}

// Who gave up does not get the store changed.
func TestCanceled(t *testing.T) {
	f := newFixture(t)
	b := f.bindingFor(9 * day)
	f.save(b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Store{}.Load(ctx, f.alias)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, Store{}.Save(ctx, f.alias, b), context.Canceled)
	require.ErrorIs(t, Store{}.DeleteAll(ctx, f.alias), context.Canceled)
	require.Equal(t, b.Thumbprint(), f.loaded())
}

// The cache on top: a binding outlives the process that minted it, and one that was rejected leaves the store.
func TestCacheOverStore(t *testing.T) {
	f := newFixture(t)
	mints := 0
	source := mtls.Source{
		Alias: f.alias,
		Store: Store{},
		Mint: func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
			mints++
			return f.bindingFor(9*day + time.Duration(mints)*time.Hour), nil
		},
	}
	minted, err := new(mtls.Cache).GetOrMint(t.Context(), source)
	require.NoError(t, err)
	var next mtls.Cache
	loaded, err := next.GetOrMint(t.Context(), source)
	require.NoError(t, err)
	require.Equal(t, minted.Thumbprint(), loaded.Thumbprint())
	require.Equal(t, 1, mints)

	refusal := &mtls.Refusal{Binding: loaded, Host: "host", Err: errors.New("alert")}
	require.True(t, next.RemoveBadCert(t.Context(), source, refusal))
	require.Empty(t, f.stored(f.alias))
	fresh, err := next.GetOrMint(t.Context(), source)
	require.NoError(t, err)
	require.NotEqual(t, minted.Thumbprint(), fresh.Thumbprint())
	require.Equal(t, []string{fresh.Thumbprint()}, f.stored(f.alias))
}

// The link to the key survives whatever it was: a provider of its type's default, flags.
func TestKeyContainerRoundTrip(t *testing.T) {
	f := newFixture(t)
	der := f.bindingFor(9 * day).Certificate.Leaf.Raw
	for _, c := range []container{
		f.key.container,
		{provider: softwareProvider, name: "KeyGuardRSAKey"},
		{name: "no provider", providerType: windows.PROV_RSA_AES, keySpec: 2, flags: ncryptSilent},
		{provider: "same", name: "same"},
	} {
		certificate, err := windows.CertCreateCertificateContext(encoding, &der[0], uint32(len(der)))
		require.NoError(t, err)
		defer windows.CertFreeCertificateContext(certificate)
		require.NoError(t, setKeyContainer(certificate, c))
		read, err := keyContainer(certificate)
		require.NoError(t, err)
		require.Equal(t, c, read)
	}
}
