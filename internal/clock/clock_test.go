package clock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// The age of something is the longer of what both clocks say: neither a wall clock that is set nor a sleep that one of
// them does not count makes it seem younger than it is.
func TestSince(t *testing.T) {
	hour := time.Hour
	pass := (*clock.Fake).Advance
	set := func(f *clock.Fake, at time.Duration) { f.SetWall(noon.Add(at)) }
	for name, test := range map[string]struct {
		pass func(*clock.Fake)
		want time.Duration
	}{
		"nothing passed":                  {func(*clock.Fake) {}, 0},
		"time passed, awake or asleep":    {func(f *clock.Fake) { pass(f, hour) }, hour},
		"the wall clock was set back":     {func(f *clock.Fake) { pass(f, hour); set(f, -9*hour) }, hour},
		"set back, and then a long time":  {func(f *clock.Fake) { set(f, -hour); pass(f, 3*hour) }, 3 * hour},
		"the wall clock stepped forward":  {func(f *clock.Fake) { pass(f, hour); set(f, 9*hour) }, 9 * hour},
		"a sleep that boot time left out": {func(f *clock.Fake) { set(f, 3*hour) }, 3 * hour},
	} {
		t.Run(name, func(t *testing.T) {
			fake := clock.NewFake(noon)
			c := fake.Clock()
			then := c.Now()
			test.pass(fake)
			require.Equal(t, test.want, c.Since(then))
		})
	}
}

// A monotonic reading would decide every comparison of such a time, and it leaves out what the machine slept through.
func TestWallHasNoMonotonicReading(t *testing.T) {
	var real *clock.Clock
	now := time.Now()
	for name, wall := range map[string]time.Time{
		"real": real.Wall(), "fake": clock.NewFake(now).Clock().Wall(), "as told": clock.NewFake(now).Wall(),
	} {
		require.NotContains(t, wall.String(), "m=", name)
		require.WithinDuration(t, now, wall, time.Minute, name)
	}
	fake := clock.NewFake(noon)
	fake.SetWall(now)
	require.NotContains(t, fake.Wall().String(), "m=")
}

// The real clock goes forward.
func TestRealClock(t *testing.T) {
	var real *clock.Clock
	then := real.Now()
	boot := real.Boot()
	require.NoError(t, real.Wait(t.Context(), 20*time.Millisecond))
	require.Greater(t, real.Boot(), boot)
	require.GreaterOrEqual(t, real.Since(then), 20*time.Millisecond)
	require.Less(t, real.Since(then), time.Minute)
}

// passing is a clock, and what lets time pass on it.
type passing struct {
	clock *clock.Clock
	pass  func(time.Duration)
}

// bothClocks are the real clock, in a bubble of testing/synctest, and a Fake.
func bothClocks(fake *clock.Fake) map[string]passing {
	return map[string]passing{"real": {nil, time.Sleep}, "fake": {fake.Clock(), fake.Advance}}
}

// Monotonic goes forward, with a Fake when that is told to.
func TestMonotonic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(noon)
		for name, test := range bothClocks(fake) {
			then := test.clock.Monotonic()
			test.pass(time.Hour)
			require.Equal(t, time.Hour, test.clock.Monotonic()-then, name)
		}
	})
}

// A limit can be called off, without the context.
func TestLimitIsCalledOff(t *testing.T) {
	fake := clock.NewFake(noon)
	ctx, done, cancel := fake.Clock().WithLimit(t.Context(), time.Minute)
	done()
	fake.Advance(time.Hour)
	require.NoError(t, ctx.Err())
	cancel()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
	require.Nil(t, clock.LimitOf(ctx))
}

// A wait of the real clock is over after its time, or with its context.
func TestRealWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var real *clock.Clock
		start := time.Now()
		require.NoError(t, real.Wait(t.Context(), time.Hour))
		require.Equal(t, time.Hour, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, real.Wait(ctx, time.Hour), context.DeadlineExceeded)
		require.Equal(t, time.Hour+time.Minute, time.Since(start))

		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, real.Wait(cancelled, time.Hour), context.Canceled)
		require.Equal(t, time.Hour+time.Minute, time.Since(start))
	})
}

// AfterFunc calls its function after its time, and not at all once it was stopped.
func TestRealAfterFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var real *clock.Clock
		called := make(chan time.Time, 2)
		start := time.Now()
		stop := real.AfterFunc(time.Minute, func() { called <- time.Now() })
		require.Equal(t, time.Minute, (<-called).Sub(start))
		require.False(t, stop())
		require.True(t, real.AfterFunc(time.Minute, func() { called <- time.Now() })())
		time.Sleep(time.Hour) // of the bubble
		require.Empty(t, called)
	})
}

// A Wait on a Fake takes no real time: it moves the clock, and is remembered.
func TestFakeWaits(t *testing.T) {
	fake := clock.NewFake(noon)
	c := fake.Clock()
	boot := c.Boot()
	require.NoError(t, c.Wait(t.Context(), time.Hour))
	require.NoError(t, c.Wait(t.Context(), time.Minute))
	require.NoError(t, c.Wait(t.Context(), 0), "no wait at all")
	require.NoError(t, c.Wait(t.Context(), -time.Second))
	require.Equal(t, noon.Add(time.Hour+time.Minute), c.Wall())
	require.Equal(t, time.Hour+time.Minute, c.Boot()-boot)
	require.Equal(t, []time.Duration{time.Hour, time.Minute}, fake.Waits())
	require.Empty(t, fake.Waits(), "they are told once")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Wait(ctx, time.Hour), context.Canceled)
	require.Equal(t, noon.Add(time.Hour+time.Minute), c.Wall(), "a wait whose context has ended moves nothing")
	require.Empty(t, fake.Waits())
}

// A manual Fake moves when it is told to: a Wait ends when Advance has gone as far, or with its context.
func TestFakeManual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(noon)
		fake.Manual()
		c := fake.Clock()
		ended := make(chan error, 1)
		wait := func(ctx context.Context) { ended <- c.Wait(ctx, time.Minute) }

		go wait(t.Context())
		synctest.Wait()
		require.Equal(t, 1, fake.Waiting())
		require.Equal(t, noon, fake.Wall(), "the wait itself moves nothing")
		fake.Advance(time.Minute - 1)
		synctest.Wait()
		require.Empty(t, ended)
		fake.SetWall(noon.Add(time.Hour))
		synctest.Wait()
		require.Empty(t, ended, "that the wall clock was set ends no wait")
		fake.Advance(1)
		require.NoError(t, <-ended)
		require.Equal(t, []time.Duration{time.Minute}, fake.Waits())

		ctx, cancel := context.WithCancel(t.Context())
		go wait(ctx)
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Zero(t, fake.Waiting(), "its timer goes with it")
	})
}

// Timers of a Fake fire when Advance has gone as far, once, and not when they were stopped before.
func TestFakeAfterFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(noon)
		c := fake.Clock()
		called := make(chan string, 3)
		set := func(name string, d time.Duration) func() bool { return c.AfterFunc(d, func() { called <- name }) }
		first, second, third := set("first", time.Minute), set("second", time.Minute+1), set("third", time.Minute)
		require.Equal(t, 3, fake.Waiting())
		require.True(t, third())
		require.False(t, third(), "it is stopped once")
		fake.Advance(time.Minute)
		require.Equal(t, "first", <-called)
		synctest.Wait()
		require.Empty(t, called)
		require.False(t, first(), "too late")
		require.Equal(t, 1, fake.Waiting())
		require.NoError(t, c.Wait(t.Context(), time.Hour))
		require.Equal(t, "second", <-called, "a Wait of another moves the clock as well")
		require.False(t, second())
	})
}

// A context with a time-out ends as that of package context does, on either clock, and names its limit. Whoever ends it
// earlier cancels it.
func TestWithTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := clock.NewFake(noon)
		for name, test := range bothClocks(fake) {
			ctx, cancel := test.clock.WithTimeout(t.Context(), time.Minute)
			test.pass(time.Minute - 1)
			synctest.Wait()
			require.NoError(t, ctx.Err(), name)
			require.Nil(t, clock.LimitOf(ctx), name)
			test.pass(1)
			synctest.Wait()
			require.Equal(t, context.DeadlineExceeded, ctx.Err(), name)
			require.Equal(t, &clock.LimitError{Limit: time.Minute}, clock.LimitOf(ctx), name)
			require.EqualError(t, clock.LimitOf(ctx), "no answer within 1m0s")
			cancel()

			ctx, cancel = test.clock.WithTimeout(t.Context(), time.Minute)
			cancel()
			require.Equal(t, context.Canceled, ctx.Err(), name)
			require.Nil(t, clock.LimitOf(ctx), name)
		}
		require.Zero(t, fake.Waiting())
	})
}

// Next says when the next timer of a Fake fires.
func TestFakeNext(t *testing.T) {
	fake := clock.NewFake(noon)
	_, set := fake.Next()
	require.False(t, set)
	defer fake.Clock().AfterFunc(time.Hour, func() {})()
	defer fake.Clock().AfterFunc(time.Minute, func() {})()
	fake.Advance(time.Second)
	next, set := fake.Next()
	require.True(t, set)
	require.Equal(t, 59*time.Second, next)
}
