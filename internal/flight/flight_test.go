package flight_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests run in bubbles of testing/synctest: time is the test's, synctest.Wait returns when everybody waits, and a
// bubble does not end well before the last goroutine in it has ended.

const limit = time.Minute

// work is what the flights of a test do: it counts its runs, and lasts until it is released or its context ends.
type work struct {
	runs    atomic.Int32
	release chan struct{}
	ctx     atomic.Pointer[context.Context] // of the latest run
}

func newWork() *work { return &work{release: make(chan struct{})} }

// do returns the number of the run.
func (w *work) do(ctx context.Context) (int, error) {
	run := int(w.runs.Add(1))
	w.ctx.Store(&ctx)
	select {
	case <-w.release:
		return run, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// result is what a caller got.
type result struct {
	value int
	err   error
}

// ask calls Do in a goroutine of its own.
func ask(ctx context.Context, g *flight.Group[string, int], key string, w *work) <-chan result {
	got := make(chan result, 1)
	go func() {
		value, err := g.Do(ctx, key, limit, w.do)
		got <- result{value, err}
	}()
	return got
}

// bubble runs a test with a Group.
func bubble(t *testing.T, test func(t *testing.T, g *flight.Group[string, int])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, new(flight.Group[string, int])) })
}

// All who ask while the work is under way get its one result. Who asks for another key is none of them.
func TestManyAskAndOneWorks(t *testing.T) {
	for name, want := range map[string]error{"success": nil, "failure": errors.New("no key")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
				var runs atomic.Int32
				release := make(chan struct{})
				var callers sync.WaitGroup
				for range 100 {
					callers.Go(func() {
						value, err := g.Do(t.Context(), "key", limit, func(context.Context) (int, error) {
							runs.Add(1)
							<-release
							return 42, want
						})
						assert.Equal(t, 42, value)
						assert.Equal(t, want, err)
					})
				}
				synctest.Wait()
				require.EqualValues(t, 1, runs.Load())
				other, err := g.Do(t.Context(), "another", limit, func(context.Context) (int, error) { return 7, nil })
				require.NoError(t, err)
				require.Equal(t, 7, other, "another key does not wait")
				close(release)
				callers.Wait()
				require.EqualValues(t, 1, runs.Load())
			})
		})
	}
}

// The end of a caller's context is that caller's alone, the first one's too: the work goes on for those who wait, and
// for one who comes later.
func TestWorkOutlivesItsCallers(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{
		"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, context.Canceled},
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
				w := newWork()
				ctx, cancel := test.end(t.Context())
				defer cancel()
				first := ask(ctx, g, "key", w)
				synctest.Wait()
				second := ask(t.Context(), g, "key", w)
				require.Equal(t, result{0, test.want}, <-first)
				require.NoError(t, (*w.ctx.Load()).Err(), "the work goes on")
				third := ask(t.Context(), g, "key", w)
				synctest.Wait()
				close(w.release)
				require.Equal(t, result{1, nil}, <-second)
				require.Equal(t, result{1, nil}, <-third)
				require.EqualValues(t, 1, w.runs.Load())
			})
		})
	}
}

// When everybody has given up, the work goes on all the same: what it cost is of use to who comes next.
func TestWorkThatNobodyWaitsForGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		w := newWork()
		ctx, cancel := context.WithCancel(t.Context())
		first := ask(ctx, g, "key", w)
		synctest.Wait()
		cancel()
		require.Equal(t, result{0, context.Canceled}, <-first)
		late := ask(t.Context(), g, "key", w)
		synctest.Wait()
		close(w.release)
		require.Equal(t, result{1, nil}, <-late)
	})
}

// The work's context is its own: what the first caller put into it, and when it ends, is not for the others to bear.
func TestContextOfTheWork(t *testing.T) {
	type key struct{}
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		w := newWork()
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "the caller's"), time.Second)
		defer cancel()
		start := time.Now()
		got := ask(ctx, g, "key", w)
		synctest.Wait()
		own := *w.ctx.Load()
		require.Nil(t, own.Value(key{}))
		deadline, ok := own.Deadline()
		require.True(t, ok)
		require.Equal(t, limit, deadline.Sub(start), "the limit, not the caller's deadline")
		<-ctx.Done()
		<-got
		require.NoError(t, own.Err())
		close(w.release)
		synctest.Wait()
		require.ErrorIs(t, own.Err(), context.Canceled, "nothing of it is left when the work is done")
	})
}

// Work that takes longer than the limit is told to end, and all who wait learn why.
func TestLimit(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		w := newWork()
		start := time.Now()
		first, second := ask(t.Context(), g, "key", w), ask(t.Context(), g, "key", w)
		require.Equal(t, result{0, context.DeadlineExceeded}, <-first)
		require.Equal(t, result{0, context.DeadlineExceeded}, <-second)
		require.Equal(t, limit, time.Since(start))
	})
}

// Work that does not heed the end of its context does not hold up those who wait for it, nor those who come later: they
// have it run anew, and what it returns at last is nobody's.
func TestWorkThatDoesNotHeedItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		deaf, w := make(chan struct{}), newWork()
		start := time.Now()
		_, err := g.Do(t.Context(), "key", limit, func(ctx context.Context) (int, error) {
			flight.Enter(ctx, "the key provider")
			<-deaf
			return 1, nil
		})
		require.EqualError(t, err, "waiting for the key provider, for 1m1s: no answer within 1m0s")
		require.Equal(t, limit+time.Second, time.Since(start))
		next := ask(t.Context(), g, "key", w)
		synctest.Wait()
		close(deaf)
		synctest.Wait()
		close(w.release)
		require.Equal(t, result{1, nil}, <-next)
	})
}

// After a sleep of the machine the limit and what comes after it pass at once, in any order: the error is the limit, as
// ever, and not that of a context which nobody cancelled.
func TestLimitThatPassedWhileTheMachineSlept(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			fake := clock.NewFake(time.Now())
			g := &flight.Group[string, int]{Clock: fake.Clock()}
			var ended []<-chan result
			for n := range 100 {
				ended = append(ended, ask(t.Context(), g, strconv.Itoa(n), newWork()))
			}
			synctest.Wait()
			fake.Advance(time.Hour)
			for _, got := range ended {
				r := <-got
				require.Error(t, r.err)
				require.NotErrorIs(t, r.err, context.Canceled)
			}
		})
	}
}

// The limit is one of the Group's clock, as are those of what the work waits for; who waits is told which limit it was,
// and at what.
func TestLimitByAClock(t *testing.T) {
	fake := clock.NewFake(time.Now())
	for _, test := range []struct {
		within time.Duration
		says   string
	}{
		{time.Hour, "waiting for the key: no answer within 1m0s"},
		{time.Second, "waiting for the key: no answer within 1s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := &flight.Group[string, int]{Clock: fake.Clock()}
			ended := make(chan error, 1)
			go func() {
				_, err := g.Do(t.Context(), "key", limit, func(ctx context.Context) (int, error) {
					return flight.Within(ctx, test.within, "the key", newWork().do)
				})
				ended <- err
			}()
			synctest.Wait()
			fake.Advance(min(test.within, limit) - 1)
			synctest.Wait()
			require.Empty(t, ended)
			fake.Advance(1)
			synctest.Wait()
			require.Len(t, ended, 1, "by the clock of the flight")
			require.EqualError(t, <-ended, test.says)
			synctest.Wait()
			require.Zero(t, fake.Waiting())
		})
	}
}

// What work returns in time is what Within returns; a panic, and an end of its goroutine, are errors.
func TestWithin(t *testing.T) {
	within := func(work func(context.Context) (int, error)) (int, error) {
		return flight.Within(t.Context(), time.Minute, "the key", work)
	}
	got, err := within(func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, got)
	_, err = within(func(context.Context) (int, error) { return 0, io.ErrUnexpectedEOF })
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = within(func(context.Context) (int, error) { panic("bug") })
	require.ErrorContains(t, err, "panic: bug")
	_, err = within(func(context.Context) (int, error) { runtime.Goexit(); return 1, nil })
	require.ErrorContains(t, err, "ended its goroutine")
}

// A caller who gives up is told what Within waits for.
func TestGivingUpWithin(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		ctx, cancel := context.WithTimeout(t.Context(), 1234*time.Millisecond)
		defer cancel()
		_, err := g.Do(ctx, "token", limit, func(ctx context.Context) (int, error) {
			return flight.Within(ctx, time.Hour, "the key", newWork().do)
		})
		require.ErrorContains(t, err, "waiting for the key, for 1.2s: ")
		g.CancelUnwanted()
	})
}

// Work that waits for another flight and is ended by its own limit knows what it waited for, and that its caller did
// not give up.
func TestLimitWhileAnotherFlightIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, outer *flight.Group[string, int]) {
		var inner flight.Group[string, int]
		_, err := outer.Do(t.Context(), "token", limit, func(ctx context.Context) (int, error) {
			_, err := inner.Do(ctx, "mint", time.Hour, func(ctx context.Context) (int, error) {
				flight.Enter(ctx, "IMDS to answer")
				return newWork().do(ctx)
			})
			require.ErrorIs(t, err, ctx.Err())
			return 0, flight.Explain(ctx, err)
		})
		require.ErrorContains(t, err, "waiting for IMDS to answer, for 1m0s: no answer within 1m0s")

		_, err = outer.Do(t.Context(), "token", limit, func(ctx context.Context) (int, error) {
			flight.Enter(ctx, "Entra to answer")
			<-ctx.Done()
			return 0, flight.Explain(ctx, ctx.Err())
		})
		require.EqualError(t, err, "waiting for Entra to answer, for 1m0s: no answer within 1m0s")
		inner.CancelUnwanted()
	})
}

// A caller who gives up on work that waits for another flight, whoever began that, is told what that one waits for.
func TestGivingUpWhileAnotherFlightIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, outer *flight.Group[string, int]) {
		var inner flight.Group[string, int]
		for _, key := range []string{"begins", "joins"} {
			ctx, giveUp := context.WithCancel(t.Context())
			got := make(chan error, 1)
			go func() {
				_, err := outer.Do(ctx, key, time.Hour, func(ctx context.Context) (int, error) {
					return inner.Do(ctx, "mint", time.Hour, func(ctx context.Context) (int, error) {
						flight.Enter(ctx, "IMDS to answer")
						return newWork().do(ctx)
					})
				})
				got <- err
			}()
			synctest.Wait()
			giveUp()
			require.ErrorContains(t, <-got, "waiting for IMDS to answer", key)
		}
		outer.CancelUnwanted()
		synctest.Wait()
		inner.CancelUnwanted()
	})
}

// Code of the user's runs in the work. Its panic would end the process, and the end of its goroutine (a test's FailNow)
// would leave everybody waiting: both are an error, for all who asked, and the next one who asks has the work run anew.
func TestWorkThatBreaksOff(t *testing.T) {
	for name, test := range map[string]struct {
		breakOff func()
		says     string
	}{
		"panic":             {func() { panic("key provider bug") }, "panic: key provider bug"},
		"panic of an error": {func() { panic(errors.New("nil map")) }, "panic: nil map"},
		"Goexit":            {runtime.Goexit, "ended its goroutine"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
				release := make(chan struct{})
				var callers sync.WaitGroup
				for range 10 {
					callers.Go(func() {
						value, err := g.Do(t.Context(), "key", limit, func(context.Context) (int, error) {
							<-release
							test.breakOff()
							return 42, nil
						})
						assert.ErrorContains(t, err, test.says)
						assert.Zero(t, value)
					})
				}
				synctest.Wait()
				close(release)
				callers.Wait()
				value, err := g.Do(t.Context(), "key", limit, func(context.Context) (int, error) { return 7, nil })
				require.NoError(t, err)
				require.Equal(t, 7, value)
			})
		})
	}
}

// Nothing is kept: who asks after the landing has the work run anew, after a failure as after a success.
func TestEachAskAfterTheLandingRunsAnew(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		failure := errors.New("IMDS is ill")
		for _, want := range []result{{1, nil}, {0, failure}, {3, nil}} {
			value, err := g.Do(t.Context(), "key", limit, func(context.Context) (int, error) {
				return want.value, want.err
			})
			require.Equal(t, want, result{value, err})
		}
	})
}

// Start works in the background, once, and Do joins it.
func TestStart(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		w := newWork()
		g.Start(t.Context(), "key", limit, w.do)
		g.Start(t.Context(), "key", limit, w.do)
		synctest.Wait()
		require.EqualValues(t, 1, w.runs.Load(), "it runs though nobody waits, and once")
		got := ask(t.Context(), g, "key", w)
		synctest.Wait()
		close(w.release)
		require.Equal(t, result{1, nil}, <-got)
	})
}

// CancelUnwanted ends what nobody waits for: what was started in the background, and what its callers gave up on.
// Whoever waits is not disturbed.
func TestCancelUnwanted(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		background, abandoned, wanted, joined := newWork(), newWork(), newWork(), newWork()
		g.Start(t.Context(), "background", limit, background.do)
		ctx, giveUp := context.WithCancel(t.Context())
		gone := ask(ctx, g, "abandoned", abandoned)
		waits := ask(t.Context(), g, "wanted", wanted)
		g.Start(t.Context(), "joined", limit, joined.do)
		synctest.Wait()
		joins := ask(t.Context(), g, "joined", joined)
		giveUp()
		<-gone
		synctest.Wait()

		g.CancelUnwanted()
		synctest.Wait()
		require.ErrorIs(t, (*background.ctx.Load()).Err(), context.Canceled)
		require.ErrorIs(t, (*abandoned.ctx.Load()).Err(), context.Canceled)
		require.NoError(t, (*wanted.ctx.Load()).Err())
		require.NoError(t, (*joined.ctx.Load()).Err())
		close(wanted.release)
		close(joined.release)
		require.Equal(t, result{1, nil}, <-waits)
		require.Equal(t, result{1, nil}, <-joins)
		new(flight.Group[string, int]).CancelUnwanted() // there is nothing, and that is fine
	})
}

// One who asks right after CancelUnwanted is not given the cancellation: work that takes its time to end is not joined
// any more, and when it has ended it does not take the new flight with it.
func TestCancelledWorkIsNotJoined(t *testing.T) {
	bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
		slow := make(chan struct{})
		g.Start(t.Context(), "key", limit, func(ctx context.Context) (int, error) {
			<-slow
			return 0, ctx.Err()
		})
		synctest.Wait()
		g.CancelUnwanted()
		w := newWork()
		first := ask(t.Context(), g, "key", w)
		synctest.Wait()
		require.EqualValues(t, 1, w.runs.Load())
		close(slow)
		synctest.Wait()
		second := ask(t.Context(), g, "key", w)
		synctest.Wait()
		require.EqualValues(t, 1, w.runs.Load(), "the new flight is still there to join")
		close(w.release)
		require.Equal(t, result{1, nil}, <-first)
		require.Equal(t, result{1, nil}, <-second)
	})
}

// Who gives up is not told of a flight that is waited for no more, nor of one that only began in the background.
func TestStageOfAFlightThatIsNotWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, outer *flight.Group[string, int]) {
		var inner flight.Group[string, int]
		key := func(ctx context.Context) (int, error) {
			flight.Enter(ctx, "the key")
			return newWork().do(ctx)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := outer.Do(ctx, "token", limit, func(ctx context.Context) (int, error) {
			flight.Enter(ctx, "the token")
			quick, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			_, err := inner.Do(quick, "waited for", limit, key)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			inner.Start(ctx, "background", limit, key)
			inner.Start(ctx, "background", limit, key)
			return newWork().do(ctx)
		})
		require.ErrorContains(t, err, "waiting for the token, for 1s: ")
		outer.CancelUnwanted()
		inner.CancelUnwanted()
	})
}

// What work in the background logs is written when it has landed: once, whether somebody waits or not.
func TestLogOfAFlight(t *testing.T) {
	for _, waited := range []bool{false, true} {
		bubble(t, func(t *testing.T, g *flight.Group[string, int]) {
			var told []string
			ctx := eventlog.Observe(t.Context(), &eventlog.Observer{
				Notify: func(e eventlog.Event) { told = append(told, e.Detail) },
			})
			w := newWork()
			g.Start(ctx, "key", limit, func(ctx context.Context) (int, error) {
				eventlog.Writef(ctx, eventlog.Binding, "working")
				return w.do(ctx)
			})
			var got <-chan result
			if waited {
				got = ask(ctx, g, "key", w)
			}
			synctest.Wait()
			require.Empty(t, told)
			close(w.release)
			if waited {
				<-got
			}
			synctest.Wait()
			require.Equal(t, []string{"working"}, told)
		})
	}
}
