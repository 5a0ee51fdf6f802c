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

// What a store gave, or why it was not used, is told.
func TestEventsOfTheStore(t *testing.T) {
	good, expired := binding(t, nil), binding(t, lasting(-time.Minute))
	for name, test := range map[string]struct {
		stored *mtls.Binding
		fails  error
		want   []eventlog.Step
	}{
		"nothing":     {nil, nil, []eventlog.Step{eventlog.Minted}},
		"good":        {good, nil, []eventlog.Step{eventlog.Loaded}},
		"expired":     {expired, nil, []eventlog.Step{eventlog.LoadFailed, eventlog.Minted}},
		"not to read": {good, errors.New("access denied"), []eventlog.Step{eventlog.LoadFailed, eventlog.Minted}},
	} {
		t.Run(name, func(t *testing.T) {
			var told []eventlog.Step
			ctx := eventlog.Observe(t.Context(), &eventlog.Observer{
				Notify: func(e eventlog.Event) {
					told = append(told, e.Step)
					if e.Step == eventlog.LoadFailed {
						require.Error(t, e.Err)
						require.Equal(t, test.fails != nil, errors.Is(e.Err, test.fails))
					}
				},
			})
			store := &memoryStore{entries: map[string][]*mtls.Binding{}}
			if test.stored != nil {
				store.entries["a"] = []*mtls.Binding{test.stored}
			}
			store.fail = failing("load", test.fails)
			_, err := at(clock.NewFake(time.Now())).GetOrMint(ctx, (&minter{t: t}).source("a", store))
			require.NoError(t, err)
			require.Equal(t, test.want, told)
		})
	}
}
