package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/stretchr/testify/require"
)

// A reading of the real clock is good for a tenth of a second and no longer, whether somebody asks all the time or once
// a day.
func TestFastIsNeverFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f clock.Fast
		start := time.Now()
		then := f.Now()
		for _, step := range []time.Duration{time.Millisecond, 30 * time.Millisecond, time.Second, 24 * time.Hour} {
			for range 20 {
				time.Sleep(step) // of the bubble
				synctest.Wait()
				age := f.Since(then)
				require.LessOrEqual(t, age, time.Since(start))
				require.Less(t, time.Since(start)-age, 100*time.Millisecond)
			}
		}
	})
}

// Within that time no clock is read, and nothing is allocated.
func TestFastReadsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f clock.Fast
		then := f.Now()
		first := f.Since(then)
		time.Sleep(99 * time.Millisecond) // of the bubble
		require.Equal(t, first, f.Since(then))
		require.Zero(t, testing.AllocsPerRun(1000, func() { f.Since(then) }))
	})
}

// The clock of a test moves in leaps, and each is seen at once.
func TestFastFollowsAFake(t *testing.T) {
	fake := clock.NewFake(noon)
	f := clock.Fast{Clock: fake.Clock()}
	then := f.Now()
	require.Zero(t, f.Since(then))
	fake.Advance(1)
	require.EqualValues(t, 1, f.Since(then))
	fake.SetWall(noon.Add(time.Hour))
	require.Equal(t, time.Hour, f.Since(then), "the wall clock alone")
	fake.SetWall(noon.Add(-time.Hour))
	require.EqualValues(t, 1, f.Since(then), "the boot clock alone")
	require.Zero(t, fake.Waiting(), "no timer")
}
