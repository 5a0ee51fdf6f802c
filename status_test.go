package azmtls_test

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What an engineer on call asks: which binding with which key, what failed where, what may be tried when, and what
// was done.
func TestStatus(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	cold := f.cred.Status()
	require.Nil(t, cold.Binding)
	require.Nil(t, cold.LastError)
	require.True(t, cold.TokenBudget.Available && cold.ResourceBudget.Available)
	require.Zero(t, cold.Counters)
	require.Zero(t, f.server.Counts().Metadata+f.server.Counts().Token, "no I/O")

	for range 3 {
		_, err := f.token(vault)
		require.NoError(t, err)
	}
	b := f.store.get(alias)
	warm := f.cred.Status()
	require.Equal(t, "system…#att=0", warm.Alias)
	require.Equal(t, &mtls.BindingStatus{
		Thumbprint: b.Thumbprint()[:6] + "…", Strength: mtls.StrengthSoftware, Minted: true,
		NotAfter: b.Certificate.Leaf.NotAfter, UsableUntil: b.UsableUntil(), RenewalDue: warm.Binding.RenewalDue,
	}, warm.Binding)
	whole := b.UsableUntil().Sub(b.Certificate.Leaf.NotBefore)
	require.InDelta(t, whole.Hours()/2, b.UsableUntil().Sub(warm.Binding.RenewalDue).Hours(), whole.Hours()/20+0.1)
	require.Equal(t, azmtls.Counters{CachedAnswers: 2, Tokens: 1, Mints: 1}, warm.Counters)

	require.NoError(t, f.cred.Close())
	f.declines(imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}, 0)
	_, err := f.token(storage)
	require.Error(t, err)
	failed := f.cred.Status()
	require.Equal(t, azmtls.StageToken, failed.LastError.Stage)
	require.Equal(t, azmtls.StepTokenFailed, failed.LastError.Step)
	require.Equal(t, "AADSTS700027", failed.LastError.AADSTS)
	require.Equal(t, f.clock.Wall(), failed.LastError.Time)
	require.Equal(t, err.Error(), failed.LastError.Message)
	require.False(t, failed.TokenBudget.Available, "the second refusal waits")
	require.InDelta(t, 1, failed.TokenBudget.Next.Sub(f.clock.Wall()).Seconds(), 0.11)
	require.True(t, failed.ResourceBudget.Available)
	require.True(t, failed.Binding.Kept)
	require.Equal(t, azmtls.Counters{CachedAnswers: 2, Tokens: 1, Mints: 2, Evictions: 1, Recoveries: 1}, failed.Counters)
	f.clock.Advance(1100 * time.Millisecond)
	require.True(t, f.cred.Status().TokenBudget.Available)

	text, err := json.Marshal(failed)
	require.NoError(t, err)
	require.NotContains(t, string(text), f.store.get(alias).Thumbprint())
	var read azmtls.Status
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, failed.Binding.Strength, read.Binding.Strength)
	require.Contains(t, string(text), `"strength":"software"`)
	require.Contains(t, string(text), `"cached_answers":2`)
}

// A binding of an earlier process is loaded.
func TestStatusOfALoadedBinding(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.plant()
	_, err := f.token(vault)
	require.NoError(t, err)
	status := f.cred.Status()
	require.False(t, status.Binding.Minted)
	require.Equal(t, azmtls.Counters{Tokens: 1, Loads: 1}, status.Counters)
}

// It says for which resources there are bearer tokens where bound ones are wanted, and until when.
func TestStatusOfGrants(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	for _, scope := range []string{vault, storage} {
		f.declines(imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"}, 1)
		_, err := f.scheme(scope)
		require.NoError(t, err)
	}
	bearer := f.cred.Status().Bearer
	require.Len(t, bearer, 2)
	require.Equal(t, "https://storage.azure.com", bearer[0].Resource)
	require.Equal(t, "https://vault.azure.net", bearer[1].Resource)
	require.InDelta(t, 60, bearer[0].Until.Sub(f.clock.Wall()).Minutes(), 6)
	f.declines(imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS3921996"}, 1)
	_, err := f.scheme("https://third.example")
	require.NoError(t, err)
	bearer = f.cred.Status().Bearer
	require.Len(t, bearer, 3)
	require.Empty(t, bearer[0].Resource, "all of the tenant")
	f.clock.Advance(67 * time.Minute)
	require.Empty(t, f.cred.Status().Bearer)
}

// It may be asked for at any time, and every answer from memory is counted.
func TestStatusMeanwhile(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, err := f.token(vault)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 500 {
				_, err := f.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
				assert.NoError(t, err)
			}
			assert.NotNil(t, f.cred.Status().Binding)
		})
	}
	wg.Wait()
	require.EqualValues(t, 10_000, f.cred.Status().Counters.CachedAnswers)
}
