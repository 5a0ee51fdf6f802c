package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

const day = 24 * time.Hour

// What Azure gives: certificates of a week, dated back a little, and tokens of a day with the advice to refresh them
// half-way.
const (
	certificateLife = 7 * day
	datedBack       = 5 * time.Minute
	tokenLife       = day
	refreshAdvice   = tokenLife / 2
)

// manner says when a machine renews the certificate, and refreshes the token, that it gets now.
type manner struct{ renewal, refresh func() time.Duration }

// constant is a manner without jitter.
func constant(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// ours has the code that decides decide.
type ours struct {
	t       *testing.T
	clock   *clock.Fake
	tokens  *tokencache.Cache
	binding *mtls.Binding
	asked   int
}

// sample is how many times go by until one is checked: the code that acts on it must find it due then, and not before.
const sample = 1000

func (o *ours) renewal() time.Duration {
	now := o.clock.Wall()
	leaf := &x509.Certificate{Raw: []byte{1}, NotBefore: now.Add(-datedBack), NotAfter: now.Add(certificateLife)}
	b := &mtls.Binding{Certificate: tls.Certificate{Leaf: leaf}, Issued: now}
	b.Admit(o.clock.Clock())
	if o.binding == nil {
		o.binding = b
	}
	return b.RenewalIn()
}

func (o *ours) refresh() time.Duration {
	key := tokencache.Key{Resource: "https://vault.azure.net"}
	e := o.tokens.NewEntry(key, "token", tokenLife, refreshAdvice, o.binding)
	if o.asked++; o.asked%sample == 0 {
		o.tokens.Put(e)
		o.clock.Advance(e.RefreshAt() - time.Second)
		_, due := o.tokens.Get(key)
		require.False(o.t, due)
		o.clock.Advance(time.Second)
		_, due = o.tokens.Get(key)
		require.True(o.t, due)
	}
	return e.RefreshAt()
}

// load is how many requests come in each minute.
type load struct{ imds, entra []int }

// live has a machine live from its start as long as there are minutes to count. It is asked for a token all the time.
func (l load) live(start time.Duration, by manner) {
	renewal, refresh := start, start
	for end := time.Duration(len(l.imds)) * time.Minute; min(renewal, refresh) < end; {
		if renewal <= refresh {
			l.imds[renewal/time.Minute] += 2 // metadata and certificate
			renewal += by.renewal()
		} else {
			l.entra[refresh/time.Minute]++
			refresh += by.refresh()
		}
	}
}

// A fleet that starts within a minute does not come back within one: not to IMDS, not to Entra.
func TestFleet(t *testing.T) {
	const machines, minutes = 100_000, 14 * 24 * 60
	now := clock.NewFake(time.Now())
	o := &ours{t: t, clock: now, tokens: tokencache.New(now.Clock())}
	half := constant((certificateLife - datedBack) / 2)
	after := map[string]load{} // the first hour
	t.Logf(
		"%d machines started within a minute, %d days. The most requests in a minute, after the first hour:",
		machines,
		minutes/24/60,
	)
	t.Logf("%-50s %8s %8s %12s", "", "IMDS", "Entra", "in all")
	for _, by := range []struct {
		name string
		manner
	}{
		{"ours", manner{o.renewal, o.refresh}},
		{"without jitter", manner{half, constant(refreshAdvice)}},
		{"MSAL's: certificates at their end minus 24 h", manner{constant(certificateLife - day), constant(refreshAdvice)}},
	} {
		l := load{make([]int, minutes), make([]int, minutes)}
		for range machines {
			l.live(rand.N(time.Minute), by.manner)
		}
		total := 0
		for minute := range minutes {
			total += l.imds[minute] + l.entra[minute]
		}
		after[by.name] = load{l.imds[60:], l.entra[60:]}
		t.Logf("%-50s %8d %8d %12d", by.name, slices.Max(l.imds[60:]), slices.Max(l.entra[60:]), total)
	}
	// A tenth either way of half a week is 17 hours, and of half a day 2.4: to spread over.
	require.Less(t, slices.Max(after["ours"].imds), 300)
	require.Less(t, slices.Max(after["ours"].entra), 900)
	for _, other := range []string{"without jitter", "MSAL's: certificates at their end minus 24 h"} {
		require.Greater(t, slices.Max(after[other].imds), 100_000)
	}
}
