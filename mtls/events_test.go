package mtls_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// What is told of a mint and a renewal says how long it took, of which binding it is, and why it failed.
func TestEventsOfMints(t *testing.T) {
	const took = 3 * time.Second
	now := clock.NewFake(time.Now())
	var told []eventlog.Event
	ctx := eventlog.Observe(t.Context(), &eventlog.Observer{
		Record: func(eventlog.Event) {},
		Notify: func(e eventlog.Event) { told = append(told, e) },
	})
	var fails error
	src := mtls.Source{Alias: "a", Mint: func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
		now.Advance(took)
		if fails != nil {
			return nil, fails
		}
		return binding(t, nil), nil
	}}
	cache := at(now)
	next := func(step eventlog.Step) eventlog.Event {
		t.Helper()
		require.Len(t, told, 1)
		e := told[0]
		told = nil
		require.Equal(t, step, e.Step)
		require.Equal(t, took, e.Duration)
		require.Equal(t, eventlog.Mask("a"), e.Alias)
		return e
	}
	fails = errors.New("503")
	_, err := cache.GetOrMint(ctx, src)
	require.ErrorIs(t, err, fails)
	require.ErrorIs(t, next(eventlog.MintFailed).Err, fails)

	fails = nil
	first, err := cache.GetOrMint(ctx, src)
	require.NoError(t, err)
	require.Equal(t, eventlog.Mask(first.Thumbprint()), next(eventlog.Minted).Thumbprint)

	now.Advance(time.Hour)
	fails = errors.New("504")
	require.ErrorIs(t, cache.Renew(ctx, src), fails)
	e := next(eventlog.RenewalFailed)
	require.Equal(t, eventlog.Mask(first.Thumbprint()), e.Thumbprint)
	require.ErrorIs(t, e.Err, fails)

	now.Advance(time.Hour)
	fails = nil
	require.NoError(t, cache.Renew(ctx, src))
	e = next(eventlog.Renewed)
	require.Equal(t, eventlog.Mask(first.Thumbprint()), e.Replaced)
	b, err := cache.GetOrMint(ctx, src)
	require.NoError(t, err)
	require.Equal(t, eventlog.Mask(b.Thumbprint()), e.Thumbprint)
}
