package azmtls_test

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// IMDS issues what cannot be used, or refuses. 40 callers ask for 10 s: IMDS is asked as often as the budget lets it.
func TestIMDSIssuesNothingOfUse(t *testing.T) {
	foreign := &imdstest.Fault{At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}}
	for name, test := range map[string]struct {
		options imdstest.Options
		fault   *imdstest.Fault
	}{
		"expired certificates":  {imdstest.Options{CertificateLifetime: -time.Hour}, nil},
		"a window that is shut": {imdstest.Options{TokenNotAfter: -time.Hour}, nil},
		"another's key":         {imdstest.Options{}, foreign},
		"an answer cut short":   {imdstest.Options{}, &imdstest.Fault{Do: imdstest.Malformed()}},
		"400":                   {imdstest.Options{}, &imdstest.Fault{Do: imdstest.Respond{Status: 400}}},
		"403":                   {imdstest.Options{}, &imdstest.Fault{Do: imdstest.Respond{Status: 403}}},
		"405":                   {imdstest.Options{}, &imdstest.Fault{Do: imdstest.Respond{Status: 405}}},
		"501":                   {imdstest.Options{}, &imdstest.Fault{Do: imdstest.Respond{Status: 501}}},
		"for another identity":  {imdstest.Options{}, &imdstest.Fault{At: imdstest.AtAnswer, Do: anothersID}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, test.options, nil)
			remove := func() {}
			if test.fault != nil {
				test.fault.Endpoint = imdstest.Issue
				remove = f.server.Inject(*test.fault)
			}
			f.clock.Advance(time.Hour)
			failed := f.callers(40, 10*time.Second)
			require.Equal(t, 40*20, failed)
			require.LessOrEqual(t, f.server.Counts().Issue, 5)
			require.GreaterOrEqual(t, f.server.Counts().Issue, 3, "it is asked again when there is a unit")
			require.Zero(t, f.server.Counts().Token, "nothing is sent to Entra")
			require.Zero(t, f.store.evicted())

			if test.fault != nil {
				remove()
				f.clock.Advance(11 * time.Second)
				require.Zero(t, f.callers(40, time.Second), "it is well again when IMDS is")
			}
		})
	}
}

var anothersID = imdstest.Edit(func(body map[string]any) { body["client_id"] = "22222222-3333-4444-5555-666666666666" })

// callers has so many ask for a token each, twice in a second, and returns how many failed.
func (f *fixture) callers(n int, d time.Duration) (failed int) {
	const pause = 500 * time.Millisecond
	for range int(d / pause) {
		failed += burst(n, func(n int) error {
			_, err := f.asks(fmt.Sprintf("https://resource-%d", n))
			return err
		})
		f.clock.Advance(pause)
	}
	return failed
}

// A certificate of 20 hours is too short-lived for the store, and good enough for as long as it lasts: one mint.
func TestShortLivedCertificatesAreNotMintedAgain(t *testing.T) {
	f := newFixture(t, imdstest.Options{CertificateLifetime: 20 * time.Hour, TokenLifetime: asked}, nil)
	require.Zero(t, f.callers(200, 2*time.Second))
	require.Equal(t, 200*4, f.server.Counts().TokenIssued)
	require.Equal(t, 1, f.server.Counts().Issued)
}

// IMDS dates certificates back. One that lasts for less than that is good for most of its time all the same, and is
// renewed once in that time, not by every call.
func TestCertificateThatIsDatedBackFurtherThanItLasts(t *testing.T) {
	for lasts, renewed := range map[time.Duration]time.Duration{4 * time.Minute: 2 * time.Minute, 40 * time.Minute: 20 * time.Minute} {
		f := newFixture(t, imdstest.Options{CertificateLifetime: lasts, TokenLifetime: asked}, nil)
		for range 50 {
			_, err := f.asks(vault)
			require.NoError(t, err)
			landed(t, f.clock)
			f.clock.Advance(time.Second)
		}
		require.Equal(t, 1, f.server.Counts().Issued, lasts)
		f.clock.Advance(renewed)
		for range 50 {
			_, err := f.asks(vault)
			require.NoError(t, err)
			landed(t, f.clock)
		}
		require.Equal(t, 2, f.server.Counts().Issued, lasts)
	}
}

// A certificate that does not say what it is for, or says that it is for anything, is for clients too.
func TestCertificateForAnything(t *testing.T) {
	for name, edit := range map[string]func(*x509.Certificate){
		"nothing said": func(c *x509.Certificate) { c.ExtKeyUsage, c.KeyUsage = nil, 0 },
		"any":          func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"clients and servers": func(c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		},
		"more than signing": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{EditCertificate: edit}, nil)
			_, err := f.token(vault)
			require.NoError(t, err)
			require.Equal(t, 1, f.server.Counts().Issued)
		})
	}
}
