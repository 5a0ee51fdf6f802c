package azmtls_test

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// A token is as old as the longer of what both clocks say: neither a sleep that the monotonic clock did not count, nor
// a wall clock that was set back, has it given out past its end.
func TestTokensAgeWhileTheMachineSleeps(t *testing.T) {
	for name, move := range map[string]func(*clock.Fake){
		"the wall clock alone": func(c *clock.Fake) { c.Advance(time.Second); c.SetWall(c.Wall().Add(3 * time.Hour)) },
		"both":                 func(c *clock.Fake) { c.Advance(3 * time.Hour) },
		"set back meanwhile":   func(c *clock.Fake) { c.Advance(3 * time.Hour); c.SetWall(c.Wall().Add(-3 * time.Hour)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			first, err := f.token(vault)
			require.NoError(t, err)
			move(f.clock)
			f.clock.Advance(time.Second)
			second, err := f.token(vault)
			require.NoError(t, err)
			require.NotEqual(t, first.Token, second.Token)
			require.Equal(t, 1, f.server.Counts().Issued, "the certificate is good for days")
		})
	}
}

// A machine whose clock is wrong at its start, and corrected later, asks no more often than others, and serves nothing
// past its end.
func TestClockThatIsCorrected(t *testing.T) {
	for _, wrong := range []time.Duration{-8 * 24 * time.Hour, -3 * time.Hour, 3 * time.Hour, 8 * 24 * time.Hour} {
		t.Run(wrong.String(), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil) // the simulator's clock is right
			machine := clock.NewFake(f.clock.Wall().Add(wrong))
			f.cred = f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Cache = &mtls.Cache{Clock: machine.Clock()} })
			var current string
			var since time.Time // by the right clock
			for minute := range 6 * 60 {
				f.clock.Advance(time.Minute)
				machine.Advance(time.Minute)
				if minute == 90 {
					machine.SetWall(f.clock.Wall())
				}
				token, err := f.token(vault)
				require.NoError(t, err)
				landed(t, machine)
				if token.Token != current {
					current, since = token.Token, f.clock.Wall()
				}
				require.Less(t, f.clock.Wall().Sub(since), time.Hour, "a token is good for an hour")
			}
			require.LessOrEqual(t, f.server.Counts().Token, 15)
			require.LessOrEqual(t, f.server.Counts().Issued, 2)
		})
	}
}

// ExpiresOn and RefreshOn are times of day: a monotonic reading in them would stand still while the machine sleeps.
func TestTokenTimesAreTimesOfDay(t *testing.T) {
	f := newFixture(
		t,
		imdstest.Options{RefreshIn: 20 * time.Minute},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Cache = &mtls.Cache{} },
	)
	token, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, token.ExpiresOn.Round(0), token.ExpiresOn)
	require.Equal(t, token.RefreshOn.Round(0), token.RefreshOn)
	require.Equal(t, 40*time.Minute, token.ExpiresOn.Sub(token.RefreshOn))
}

// A certificate is renewed in the background from half of its life on. Until that works, the one at hand serves, new
// scopes too.
func TestRenewal(t *testing.T) {
	for name, fault := range map[string]imdstest.Action{
		"503": imdstest.Respond{Status: 503}, "404": imdstest.Respond{Status: 404},
		"429": imdstest.Respond{Status: 429, RetryAfter: 2 * time.Minute}, "refused": imdstest.Respond{Status: 400},
		"reset": imdstest.Reset{}, "no answer": imdstest.Hang{},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{CertificateLifetime: 23 * time.Hour}, nil)
			for range 20 {
				_, err := f.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}, Claims: `{"a":{}}`})
				require.NoError(t, err)
			}
			require.Equal(t, 1, f.server.Counts().Issued)

			remove := f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: fault})
			f.clock.Advance(22 * time.Hour)
			for _, scope := range []string{"https://one", "https://two", "https://three"} {
				_, err := f.token(scope)
				require.NoError(t, err)
				f.clock.Advance(time.Second)
			}
			require.Eventually(t, func() bool { return f.server.Counts().Faults > 0 }, 10*time.Second, time.Millisecond)
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Zero(t, f.store.evicted())

			remove()
			require.Eventually(t, func() bool {
				f.clock.Advance(time.Minute) // a refusal that comes late begins its pause late
				_, err := f.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}, Claims: `{"a":{}}`})
				require.NoError(t, err)
				return f.server.Counts().Issued >= 2
			}, 10*time.Second, 5*time.Millisecond)
			require.Zero(t, f.store.evicted(), "renewal is no eviction")
		})
	}
}

// A renewal that yields the same certificate is no failure, and not repeated at every call.
func TestRenewalThatYieldsTheSame(t *testing.T) {
	f := newFixture(t, imdstest.Options{CertificateLifetime: 20 * time.Hour, ReissueSame: true}, nil)
	_, err := f.token(vault)
	require.NoError(t, err)
	for range 60 {
		f.clock.Advance(time.Minute * 15)
		_, err := f.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}, Claims: `{"a":{}}`})
		require.NoError(t, err)
	}
	require.LessOrEqual(t, f.server.Counts().Issue, 8, "at half of what remains, not at each of 60 calls")
}
