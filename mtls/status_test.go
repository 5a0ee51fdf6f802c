package mtls_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// What a Cache knows is told without a call of the store: the budgets one by one, the pause of IMDS, and when a
// renewal that failed is tried again.
func TestStatus(t *testing.T) {
	now := clock.NewFake(time.Now())
	cache, m, store := at(now), &minter{t: t, fail: failure.Pause(errors.New("429"), 10*time.Minute)}, &memoryStore{}
	src := m.source("11111111-2222-3333-4444-555555555555#att=1", store)
	require.Equal(t, mtls.Status{
		Alias:          "111111…#att=1",
		TokenBudget:    mtls.BudgetStatus{Available: true},
		ResourceBudget: mtls.BudgetStatus{Available: true},
	}, cache.Status(src))
	require.Empty(t, store.calls)

	_, err := cache.GetOrMint(t.Context(), src)
	require.Error(t, err)
	require.Equal(t, now.Wall().Add(10*time.Minute), cache.Status(src).PausedUntil)
	now.Advance(10 * time.Minute)
	m.fail = nil
	b, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Zero(t, cache.Status(src).PausedUntil)
	require.True(t, cache.Status(src).Binding.Minted)

	require.True(t, cache.RemoveBadCert(t.Context(), src, refusal(b, "resource.example")))
	require.Nil(t, cache.Status(src).Binding)
	require.True(t, cache.Status(src).TokenBudget.Available)
	require.False(t, cache.Status(src).ResourceBudget.Available)
	require.InDelta(t, 1, cache.Status(src).ResourceBudget.Next.Sub(now.Wall()).Seconds(), 0.11)

	b, err = cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	due := cache.Status(src).Binding.RenewalDue
	now.Advance(due.Sub(now.Wall()) - time.Second)
	m.fail = errors.New("503")
	minted := m.count.Load()
	_, err = cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Equal(t, minted, m.count.Load(), "it is not due yet")
	now.Advance(time.Second)
	got, err := cache.GetOrMint(t.Context(), src)
	require.NoError(t, err)
	require.Same(t, b, got)
	require.Eventually(t, func() bool { return m.count.Load() == minted+1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, now.Wall().Add(time.Minute), cache.Status(src).Binding.RenewalDue, "the next try")
}

// Strengths have names in JSON, and are read by them.
func TestStrengthInJSON(t *testing.T) {
	for _, strength := range []mtls.BindingStrength{
		mtls.StrengthNone, mtls.StrengthSoftware, mtls.StrengthTPM, mtls.StrengthKeyGuard,
	} {
		text, err := json.Marshal(strength)
		require.NoError(t, err)
		require.Equal(t, `"`+strength.String()+`"`, string(text))
		var read mtls.BindingStrength
		require.NoError(t, json.Unmarshal(text, &read))
		require.Equal(t, strength, read)
	}
	require.Error(t, json.Unmarshal([]byte(`"soft"`), new(mtls.BindingStrength)))
}
