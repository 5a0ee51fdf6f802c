package tokencache_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	vault    = "https://vault.azure.net"
	clientID = "11111111-2222-3333-4444-555555555555"
)

// softwareKey is one for all tests: it takes a while to make.
var softwareKey = sync.OnceValues(func() (mtls.Key, error) { return mtls.SoftwareKeys{}.Key(context.Background()) })

// machine has bindings, and tokens for them, on one clock.
type machine struct {
	t        *testing.T
	clock    *clock.Fake
	bindings mtls.Cache
	tokens   *tokencache.Cache
	source   mtls.Source
	lasts    time.Duration // how long a certificate does
	minted   int
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, clock: clock.NewFake(time.Now()), lasts: 7 * 24 * time.Hour}
	m.bindings.Clock = m.clock.Clock()
	m.tokens = tokencache.New(m.clock.Clock())
	m.source = mtls.Source{Alias: "system_assigned_managed_identity#att=0", Mint: m.mint}
	return m
}

func (m *machine) mint(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
	key, err := softwareKey()
	if err != nil {
		return nil, err
	}
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	m.minted++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(m.minted)), Subject: pkix.Name{CommonName: clientID},
		NotBefore: m.clock.Wall().Add(-time.Hour), NotAfter: m.clock.Wall().Add(m.lasts),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), authority)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return mtls.NewBinding(leaf, key, "https://eus.mtlsauth.example/tenant", clientID)
}

// binding returns the one in use.
func (m *machine) binding() *mtls.Binding {
	m.t.Helper()
	b, err := m.bindings.GetOrMint(m.t.Context(), m.source)
	require.NoError(m.t, err)
	return b
}

// evict has the token endpoint refuse the binding.
func (m *machine) evict(b *mtls.Binding) {
	m.t.Helper()
	refusal := &mtls.Refusal{Binding: b, Host: "eus.mtlsauth.example", Err: errors.New("alert")}
	require.True(m.t, m.bindings.RemoveBadCert(m.t.Context(), m.source, refusal))
	require.True(m.t, b.Evicted())
}

// put puts a token into the cache that lasts so long, and is due for a refresh half-way.
func (m *machine) put(key tokencache.Key, value string, life time.Duration, b *mtls.Binding) *tokencache.Entry {
	e := m.tokens.NewEntry(key, value, life, life/2, b)
	m.tokens.Put(e)
	return e
}

// get returns the token that the cache gives out, empty for none.
func (m *machine) get(key tokencache.Key) string {
	if e, _ := m.tokens.Get(key); e != nil {
		return e.Token.Token
	}
	return ""
}

// A token is found under its own key and under no other: a bound one cannot be sent as a bearer token, and one without
// cp1 would be refused by a resource that evaluates access continuously.
func TestKeysDoNotCollide(t *testing.T) {
	m := newMachine(t)
	b := m.binding()
	var keys []tokencache.Key
	for _, resource := range []string{vault, vault + "/", "https://storage.azure.com"} {
		for _, bound := range []bool{false, true} {
			for _, cae := range []bool{false, true} {
				keys = append(keys, tokencache.Key{Resource: resource, Bound: bound, CAE: cae})
			}
		}
	}
	for i, key := range keys {
		require.Empty(t, m.get(key), "%+v is there before it was put", key)
		m.put(key, fmt.Sprint("token ", i), time.Hour, b)
	}
	for i, key := range keys {
		require.Equal(t, fmt.Sprint("token ", i), m.get(key), "%+v", key)
	}
	require.Empty(t, m.get(tokencache.Key{Resource: "https://management.azure.com"}))
}

// The header of a bound token is ours to write, and at hand.
func TestAuthorization(t *testing.T) {
	m := newMachine(t)
	for key, want := range map[tokencache.Key]string{
		{Resource: vault, Bound: true}:            "mtls_pop secret",
		{Resource: vault, Bound: true, CAE: true}: "mtls_pop secret",
		{Resource: vault}:                         "", // azcore's bearer policy writes that one
		{Resource: vault, CAE: true}:              "",
	} {
		e := m.tokens.NewEntry(key, "secret", time.Hour, time.Hour/2, m.binding())
		require.Equal(t, want, e.Authorization)
		require.Equal(t, key, e.Key)
	}
}

// A bound token is worth nothing without its binding; a bearer token does not depend on the binding that it was
// obtained with.
func TestEvictionTakesBoundTokensOnly(t *testing.T) {
	m := newMachine(t)
	b := m.binding()
	bound, bearer := tokencache.Key{Resource: vault, Bound: true}, tokencache.Key{Resource: vault}
	boundEntry := m.put(bound, "bound", time.Hour, b)
	bearerEntry := m.put(bearer, "bearer", time.Hour, b)
	require.Equal(t, "bound", m.get(bound))
	require.True(t, m.tokens.Valid(boundEntry))

	m.evict(b)
	require.Empty(t, m.get(bound))
	require.False(t, m.tokens.Valid(boundEntry))
	require.Equal(t, "bearer", m.get(bearer))
	require.True(t, m.tokens.Valid(bearerEntry))

	fresh := m.binding()
	require.NotSame(t, b, fresh)
	m.put(bound, "of the fresh one", time.Hour, fresh)
	require.Equal(t, "of the fresh one", m.get(bound))
	require.False(t, m.tokens.Valid(boundEntry))
}

// A token is given out until 2 minutes before its end, so that it outlives the request that it goes with.
func TestExpiry(t *testing.T) {
	for _, bound := range []bool{false, true} {
		m := newMachine(t)
		key := tokencache.Key{Resource: vault, Bound: bound}
		e := m.put(key, "token", time.Hour, m.binding())
		m.clock.Advance(58*time.Minute - 1)
		require.Equal(t, "token", m.get(key))
		require.True(t, m.tokens.Valid(e))
		m.clock.Advance(1)
		require.Empty(t, m.get(key))
		require.False(t, m.tokens.Valid(e))
		_, refresh := m.tokens.Get(key)
		require.False(t, refresh, "what is gone is acquired, not refreshed")
	}
}

// There is nothing to refresh where there is nothing.
func TestNothingToRefresh(t *testing.T) {
	m := newMachine(t)
	m.put(tokencache.Key{Resource: vault}, "token", time.Hour, m.binding())
	for _, key := range []tokencache.Key{{Resource: "https://other"}, {Resource: vault, CAE: true}} {
		e, refresh := m.tokens.Get(key)
		require.Nil(t, e)
		require.False(t, refresh)
	}
}

// A token that lives for less than 20 minutes is given out for nine tenths of its life.
func TestExpiryOfAShortToken(t *testing.T) {
	m := newMachine(t)
	key := tokencache.Key{Resource: vault}
	m.put(key, "token", 10*time.Minute, m.binding())
	m.clock.Advance(9*time.Minute - 1)
	require.Equal(t, "token", m.get(key))
	m.clock.Advance(1)
	require.Empty(t, m.get(key))
}

// A bound token cannot be used beyond its certificate, whatever Entra says. A bearer token can.
func TestBoundTokenEndsWithItsCertificate(t *testing.T) {
	m := newMachine(t)
	m.lasts = 2 * time.Hour
	b := m.binding()
	end := b.Certificate.Leaf.NotAfter
	bound, bearer := tokencache.Key{Resource: vault, Bound: true}, tokencache.Key{Resource: vault}
	day := 24 * time.Hour
	e := m.put(bound, "long", day, b)
	require.WithinDuration(t, end, e.Token.ExpiresOn, time.Second)
	require.Equal(t, m.clock.Wall().UTC().Add(day), m.put(bearer, "long", day, b).Token.ExpiresOn)
	short := m.tokens.NewEntry(bound, "short", time.Hour, time.Minute, b)
	require.Equal(t, m.clock.Wall().UTC().Add(time.Hour), short.Token.ExpiresOn, "it is not lengthened")

	m.clock.Advance(end.Sub(m.clock.Wall()) - 2*time.Minute - 1)
	require.Equal(t, "long", m.get(bound))
	m.clock.Advance(1)
	require.Empty(t, m.get(bound))
	require.Equal(t, "long", m.get(bearer))
}

// One caller is told that it is time to refresh, give or take a tenth, and if that comes to nothing, another one half a
// minute later, then a minute, up to five. The token serves on.
func TestRefreshIsToldOncePerPause(t *testing.T) {
	m := newMachine(t)
	key := tokencache.Key{Resource: vault}
	m.put(key, "token", time.Hour, m.binding())
	told := func() (count int) {
		var wg sync.WaitGroup
		var refreshes atomic.Int32
		for range 50 {
			wg.Go(func() {
				e, refresh := m.tokens.Get(key)
				assert.NotNil(t, e)
				if refresh {
					refreshes.Add(1)
				}
			})
		}
		wg.Wait()
		return int(refreshes.Load())
	}
	m.clock.Advance(27*time.Minute - 1)
	require.Zero(t, told(), "too early")
	m.clock.Advance(6*time.Minute + 1)
	require.Equal(t, 1, told())
	for _, pause := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		m.clock.Advance(pause - time.Second)
		require.Zero(t, told(), "somebody is at it")
		m.clock.Advance(time.Second)
		require.Equal(t, 1, told(), "it came to nothing")
	}
	m.put(key, "fresh", time.Hour, m.binding())
	m.clock.Advance(time.Minute)
	require.Zero(t, told(), "the fresh one has a time of its own")
	require.Equal(t, "fresh", m.get(key))
}

// A fleet that started together does not refresh together.
func TestRefreshesSpread(t *testing.T) {
	m := newMachine(t)
	b := m.binding()
	due := map[int]bool{}
	for i := range 50 {
		key := tokencache.Key{Resource: fmt.Sprint("https://", i)}
		m.put(key, "token", time.Hour, b)
	}
	for minute := range 40 {
		m.clock.Advance(time.Minute)
		for i := range 50 {
			if _, refresh := m.tokens.Get(tokencache.Key{Resource: fmt.Sprint("https://", i)}); refresh {
				due[minute] = true
			}
		}
	}
	require.Greater(t, len(due), 4)
}

// A token that was issued here is known again as long as a client may hold it: after its binding was evicted, until it
// expires. The tokens of others are not ours.
func TestIssued(t *testing.T) {
	m := newMachine(t)
	require.Nil(t, m.tokens.Issued("anything"), "nothing was issued")
	b := m.binding()
	short := m.put(tokencache.Key{Resource: vault, Bound: true}, "short", time.Hour, b)
	long := m.put(tokencache.Key{Resource: vault, Bound: true}, "long", 2*time.Hour, b)
	m.put(tokencache.Key{Resource: vault}, "bearer", time.Hour, b)
	require.Same(t, short, m.tokens.Issued("short"), "a client may hold it yet")
	require.Same(t, long, m.tokens.Issued("long"))
	require.Nil(t, m.tokens.Issued("bearer"), "it is sent as it is")
	require.Nil(t, m.tokens.Issued("somebody else's"))
	m.evict(b)
	require.Same(t, long, m.tokens.Issued("long"), "a client may hold it yet")
}

// Those who want the same token at the same time get it by one request; another token, or claims of a challenge, are
// another request.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencache.New(nil)
		var runs sync.Map // how often each token was acquired
		release := make(chan struct{})
		ask := func(wg *sync.WaitGroup, r tokencache.Request) {
			wanted := fmt.Sprint(r)
			wg.Go(func() {
				e, err := c.Share(t.Context(), r, func(context.Context) (*tokencache.Entry, error) {
					count, _ := runs.LoadOrStore(wanted, new(atomic.Int32))
					count.(*atomic.Int32).Add(1)
					<-release
					return c.NewEntry(r.Key, wanted, time.Hour, time.Hour, &mtls.Binding{}), nil
				})
				assert.NoError(t, err)
				assert.Equal(t, wanted, e.Token.Token)
			})
		}
		var wg sync.WaitGroup
		for range 10 {
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: vault}})
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: vault}, Claims: `{"nbf":1}`})
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: vault}, Claims: `{"nbf":2}`})
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: vault, CAE: true}})
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: vault, Bound: true}})
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: vault, Bound: true}, NoBearer: true})
			ask(&wg, tokencache.Request{Key: tokencache.Key{Resource: "https://storage.azure.com"}})
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		tokens := 0
		runs.Range(func(wanted, count any) bool {
			tokens++
			require.EqualValues(t, 1, count.(*atomic.Int32).Load(), wanted)
			return true
		})
		require.Equal(t, 7, tokens)
	})
}

// A refresh runs once, in the background. Who needs the token before it is there joins it, unless claims demand another
// one.
func TestRefreshSharesItsFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencache.New(nil)
		key := tokencache.Key{Resource: vault}
		var runs atomic.Int32
		release := make(chan struct{})
		acquire := func(value string) func(context.Context) (*tokencache.Entry, error) {
			return func(context.Context) (*tokencache.Entry, error) {
				runs.Add(1)
				<-release
				return c.NewEntry(key, value, time.Hour, time.Hour, &mtls.Binding{}), nil
			}
		}
		c.Refresh(t.Context(), tokencache.Request{Key: key}, acquire("refreshed"))
		c.Refresh(t.Context(), tokencache.Request{Key: key}, acquire("refreshed twice"))
		synctest.Wait()
		var wg sync.WaitGroup
		for claims, want := range map[string]string{"": "refreshed", `{"nbf":1}`: "acquired"} {
			wg.Go(func() {
				e, err := c.Share(t.Context(), tokencache.Request{Key: key, Claims: claims}, acquire("acquired"))
				assert.NoError(t, err)
				assert.Equal(t, want, e.Token.Token)
			})
		}
		synctest.Wait()
		require.EqualValues(t, 2, runs.Load())
		close(release)
		wg.Wait()
	})
}

// A token takes 5 minutes at the most, and longer than that nobody waits. CancelUnwanted ends a refresh that nobody
// waits for.
func TestFlightsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tokencache.New(nil)
		ended := make(chan error, 1)
		until := func(ctx context.Context) (*tokencache.Entry, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
		start := time.Now()
		request := tokencache.Request{Key: tokencache.Key{Resource: vault}}
		_, err := c.Share(t.Context(), request, until)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, <-ended, context.DeadlineExceeded)
		require.Equal(t, 5*time.Minute, time.Since(start))

		c.Refresh(t.Context(), request, until)
		synctest.Wait()
		c.CancelUnwanted()
		require.ErrorIs(t, <-ended, context.Canceled)

		start = time.Now()
		c.Refresh(t.Context(), request, until)
		require.ErrorIs(t, <-ended, context.DeadlineExceeded)
		require.Equal(t, 5*time.Minute, time.Since(start), "a refresh has the same limit")
	})
}

// A token at hand is given out without an allocation: every request of every client comes by here.
func TestGetAllocatesNothing(t *testing.T) {
	c := tokencache.New(nil)
	key := tokencache.Key{Resource: vault, Bound: true, CAE: true}
	c.Put(c.NewEntry(key, "token", time.Hour, time.Hour/2, newMachine(t).binding()))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if e, _ := c.Get(key); e == nil {
			t.Error("the token is gone")
		}
	}))
}

// Readers and writers do not get into each other's way: what is read is an entry of the key, whole.
func TestConcurrentUse(t *testing.T) {
	m := newMachine(t)
	b := m.binding()
	var wg sync.WaitGroup
	for i := range 8 {
		key := tokencache.Key{Resource: fmt.Sprint("https://", i%4), Bound: i%2 == 0}
		wg.Go(func() {
			for range 100 {
				m.tokens.Put(m.tokens.NewEntry(key, "token", time.Hour, time.Hour/2, b))
				got, _ := m.tokens.Get(key)
				if assert.NotNil(t, got) {
					assert.Equal(t, key, got.Key)
				}
				assert.Equal(t, key.Bound, m.tokens.Issued("token") != nil && key.Bound)
			}
		})
	}
	wg.Wait()
}
