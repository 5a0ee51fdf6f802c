// Package flight shares effort: many ask for the same, one works, and nobody's cancellation hurts the others.
//
// It stands beside golang.org/x/sync/singleflight, which lends the work the first caller's context and panics again in
// a goroutine of its own.
package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/eventlog"
)

// Group is a set of flights, told apart by their keys. The zero value is ready.
type Group[K comparable, V any] struct {
	Clock *clock.Clock // nil is the real one

	mu      sync.Mutex
	flights map[K]*flight[V]
}

type flight[V any] struct {
	stage   progress
	log     eventlog.Deferred
	cancel  context.CancelFunc
	landed  chan struct{}
	waiting int // guarded by Group.mu until it has landed, as the result is
	value   V
	err     error
}

// Do returns the result of work, which all who ask for the key at the same time share. The work runs in a context of
// its own that ends after the limit; a caller waits as long as ctx lets it, and the work goes on for those who come
// later. A panic of the work is an error. The error of a caller who gave up is ctx.Err(), and says what it was that
// took so long: see [Enter]. Work that does not heed the end of its context is left alone with what it does.
//
// The events of the work are for the observer of the one who began it. They are told when it has landed, so that who
// hears of them may ask for what the work is for.
func (g *Group[K, V]) Do(
	ctx context.Context,
	key K,
	limit time.Duration,
	work func(context.Context) (V, error),
) (V, error) {
	f := g.join(ctx, key, limit, work, 1)
	defer g.leave(ctx, f)
	select {
	case <-f.landed:
		return f.value, f.err
	default:
	}
	select {
	case <-f.landed:
		return f.value, f.err
	case <-ctx.Done():
		var none V
		return none, f.stage.giveUp(end(ctx))
	}
}

// Start begins the work in the background, unless it is under way already. Nobody waits for it until Do joins. Of ctx
// it has nothing but the observer.
func (g *Group[K, V]) Start(ctx context.Context, key K, limit time.Duration, work func(context.Context) (V, error)) {
	g.join(ctx, key, limit, work, 0)
}

// CancelUnwanted cancels the flights that nobody waits for. Who asks for the same from now on does not join them.
func (g *Group[K, V]) CancelUnwanted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, f := range g.flights {
		if f.waiting == 0 {
			f.cancel()
			delete(g.flights, key)
		}
	}
}

func (g *Group[K, V]) join(
	caller context.Context, key K, limit time.Duration, work func(context.Context) (V, error), waiting int,
) *flight[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.flights[key]; f != nil {
		if f.waiting += waiting; waiting > 0 {
			await(caller, &f.stage)
		}
		return f
	}
	ctx, cancel := g.Clock.WithTimeout(context.Background(), limit)
	f := &flight[V]{cancel: cancel, landed: make(chan struct{}), waiting: waiting}
	f.stage.clock = g.Clock
	ctx = eventlog.Carry(eventlog.Defer(context.WithValue(ctx, progressKey{}, &f.stage), &f.log), caller)
	if g.flights == nil {
		g.flights = map[K]*flight[V]{}
	}
	g.flights[key] = f
	if waiting > 0 {
		await(caller, &f.stage) // before the work is in a stage, of which a caller may be told at once
	}
	stop := g.Clock.AfterFunc(limit+grace, func() {
		var none V
		g.land(key, f, none, f.stage.giveUp(&clock.LimitError{Limit: limit}))
		f.cancel() // not before, or the work might say that it was cancelled, and land with that
	})
	go func() {
		var value V
		err := errBrokenOff
		defer func() {
			stop()
			f.cancel() // so that no timer is left when the callers have the result
			g.land(key, f, value, err)
		}()
		value, err = guarded(ctx, work)
	}()
	return f
}

// grace is how long work may take to end once its limit has ended its context.
const grace = time.Second

// errBrokenOff is the result of work that ended its goroutine (runtime.Goexit, as a test's FailNow does) and so
// returned none.
var errBrokenOff = errors.New("the work ended its goroutine")

// land gives the result to those who wait, who write the log. Who asks from now on has the work run anew. The first
// landing counts.
func (g *Group[K, V]) land(key K, f *flight[V], value V, err error) {
	g.mu.Lock()
	select {
	case <-f.landed:
		g.mu.Unlock()
		return
	default:
	}
	if g.flights[key] == f { // it was cancelled otherwise, and another may have taken its place
		delete(g.flights, key)
	}
	f.value, f.err = value, err
	unwanted := f.waiting == 0
	close(f.landed)
	g.mu.Unlock()
	if unwanted {
		f.log.Pass(context.Background())
	}
}

func (g *Group[K, V]) leave(ctx context.Context, f *flight[V]) {
	await(ctx, nil)
	g.mu.Lock()
	f.waiting--
	g.mu.Unlock()
	select {
	case <-f.landed:
		f.log.Pass(ctx)
	default:
	}
}

// guarded turns a panic of the work into an error: it would end the process, since no caller is above it.
func guarded[V any](ctx context.Context, work func(context.Context) (V, error)) (value V, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return work(ctx)
}
