package mtls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/stretchr/testify/require"
)

type ecKey struct{ *ecdsa.PrivateKey }

func (ecKey) Strength() BindingStrength { return StrengthSoftware }

// plain returns a binding that no Cache has given out.
func plain(t *testing.T) *Binding {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &Binding{
		Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: ecKey{key}, Leaf: leaf},
		Endpoint:    "https://entra.example/tenant",
	}
}

// A certificate that IMDS issues again is barred no more, not even by a late refusal of the binding that it was first.
// Where it was not paid for by an eviction, it costs a unit.
func TestReissuedCertificateIsBarredNoMore(t *testing.T) {
	fake := clock.NewFake(time.Now())
	e := newEntry(fake.Clock(), &imds{})
	first := plain(t)
	e.minted(Source{}, first)
	require.True(t, e.token.available(fake.Boot()), "a mint costs nothing")
	e.bury(first)
	require.True(t, e.tombstones.bar(first))
	again := *first
	e.minted(Source{}, &again)
	require.False(t, e.tombstones.bar(&again))
	require.False(t, e.token.available(fake.Boot()), "it is counted")
	e.bury(first)
	require.False(t, e.tombstones.bar(&again))
	require.False(t, again.Evicted())
}

// countingStore counts what is asked of it.
type countingStore struct {
	NoStore
	loads int
}

func (s *countingStore) Load(context.Context, string) (*Binding, error) {
	s.loads++
	return nil, ErrNotFound
}

// While the next mint waits for a unit, a call costs nothing: the store is not read either.
func TestWaitingForAUnitCostsNothing(t *testing.T) {
	fake := clock.NewFake(time.Now())
	store, mints := &countingStore{}, 0
	cache := &Cache{Clock: fake.Clock()}
	src := Source{Alias: "a", Store: store, Mint: func(context.Context, MintRequest) (*Binding, error) {
		mints++
		return nil, failure.Definite(errors.New("no certificates for this machine"))
	}}
	for range 100 {
		_, err := cache.GetOrMint(t.Context(), src)
		require.ErrorContains(t, err, "no certificates for this machine")
	}
	require.Equal(t, 1, store.loads)
	require.Equal(t, 1, mints)
}

// A host that answers without having asked for the certificate has not accepted it.
func TestUnaskedHostAcceptsNothing(t *testing.T) {
	for auth, accepted := range map[tls.ClientAuthType]bool{tls.NoClientCert: false, tls.RequestClientCert: true} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.TLS = &tls.Config{ClientAuth: auth}
		server.StartTLS()
		b := plain(t)
		b.admit(nil)
		transport := NewTransport(server.Client().Transport.(*http.Transport), b)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		resp, err := transport.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, accepted, b.wasAccepted())
		require.Equal(t, accepted, transport.hostOf(req.URL.Host).knows(b.clock().Boot()))
		transport.CloseIdleConnections()
		server.Close()
	}
}

// When a mint yields a binding for another identity, the one before is nobody's: what was obtained with its bindings is
// of no use.
func TestMintForAnotherIdentityDisownsTheOneBefore(t *testing.T) {
	e := newEntry(clock.NewFake(time.Now()).Clock(), &imds{})
	first, same, other := plain(t), plain(t), plain(t)
	other.ClientID = "22222222-3333-4444-5555-666666666666"
	e.minted(Source{}, first)
	e.minted(Source{}, same)
	require.False(t, first.Disowned(), "a renewal")
	e.minted(Source{}, other)
	require.True(t, first.Disowned())
	require.True(t, same.Disowned())
	require.False(t, other.Disowned())
}

// A request that was under way when its binding was evicted leaves no connection, even if net/http opened another one
// for it: the owner of the Transport has let go of it by then.
func TestEvictedBindingLeavesNoConnection(t *testing.T) {
	var open, requests atomic.Int32
	var transport *Transport
	b := plain(t)
	b.admit(nil)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) != 2 {
			return
		}
		b.markEvicted()
		transport.CloseIdleConnections()
		conn, _, err := http.NewResponseController(w).Hijack() // lost on a reused connection: net/http tries a fresh one
		if err == nil {
			open.Add(-1)
			_ = conn.Close()
		}
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.StartTLS()
	defer server.Close()
	transport = NewTransport(server.Client().Transport.(*http.Transport), b)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		resp, err := transport.Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.EqualValues(t, 3, requests.Load())
	require.Eventually(t, func() bool { return open.Load() == 0 }, 5*time.Second, time.Millisecond)
}

// When IMDS issues the certificate in use once more, the next renewal comes at half of what remains of it.
func TestRenewalThatYieldsTheSame(t *testing.T) {
	fake := clock.NewFake(time.Now())
	e, b := newEntry(fake.Clock(), &imds{}), plain(t)
	e.minted(Source{}, b)
	same := *b
	src := Source{Mint: func(context.Context, MintRequest) (*Binding, error) { return &same, nil }}
	got, err := e.renewed(t.Context(), src, b, MintRequest{})
	require.NoError(t, err)
	require.Same(t, b, got)
	require.InDelta(t, (b.admitted.left() / 2).Seconds(), (e.renewal.next - fake.Boot()).Seconds(), 1)
}

// Who joins the renewal of a binding gets the new one. If none comes, the old one serves as long as it can.
func TestWhoJoinsARenewal(t *testing.T) {
	fake := clock.NewFake(time.Now())
	e, old, fresh, fails := newEntry(fake.Clock(), &imds{}), plain(t), plain(t), errors.New("503")
	e.minted(Source{}, old)
	outcome := fails
	src := Source{Store: NoStore{}, Mint: func(context.Context, MintRequest) (*Binding, error) { return fresh, outcome }}
	b, err := e.replaceOld(t.Context(), src, old)
	require.NoError(t, err)
	require.Same(t, old, b)

	old.admitted.evicted.Store(true)
	_, err = e.replaceOld(t.Context(), src, old)
	require.ErrorIs(t, err, fails)

	old.admitted.evicted.Store(false)
	outcome = nil
	b, err = e.replaceOld(t.Context(), src, old)
	require.NoError(t, err)
	require.Same(t, fresh, b)
}

// A tombstone stands until the certificate has ended, at least for a day.
func TestTombstonesLast(t *testing.T) {
	now := time.Now()
	stones, long, short := tombstones{}, plain(t), plain(t)
	short.Certificate.Leaf.NotAfter = now.Add(time.Hour)
	stones.add(long, now)
	stones.add(short, now)
	other := plain(t)
	stones.add(other, now.Add(23*time.Hour))
	require.True(t, stones.bar(short), "a clock that is set wrong brings nothing back at once")
	stones.add(other, now.Add(24*time.Hour+1))
	require.False(t, stones.bar(short))
	require.True(t, stones.bar(long))
	stones.add(other, long.Certificate.Leaf.NotAfter)
	require.True(t, stones.bar(long))
	stones.add(other, long.Certificate.Leaf.NotAfter.Add(1))
	require.False(t, stones.bar(long))
	for range maxTombstones + 5 {
		b := plain(t)
		stones.add(b, now)
		require.True(t, stones.bar(b))
		require.LessOrEqual(t, len(stones), maxTombstones)
	}
}

// A binding is renewed when about half of its life is over.
func TestRenewalIsDueHalfWay(t *testing.T) {
	for range 20 {
		fake := clock.NewFake(time.Now())
		b := plain(t)
		b.admit(fake.Clock())
		whole := b.UsableUntil().Sub(b.Certificate.Leaf.NotBefore)
		fake.Advance(whole * 4 / 10)
		require.Positive(t, b.renewalIn())
		fake.Advance(whole * 2 / 10)
		require.Negative(t, b.renewalIn())
	}
}
