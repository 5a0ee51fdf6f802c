package mtls

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// storeLimit is how long a call waits for the store. A store is a convenience: a token does not wait for it longer.
const storeLimit = 2 * time.Second

var errStoreOverdue = errors.New("the store has not answered an earlier call yet")

// storeQueue runs the store operations of one alias one at a time, in the order in which they were enqueued: a delete that was
// enqueued before a save never removes what was saved. Every operation runs; those who wait for it give up after
// storeLimit and, as long as the store is overdue, at once.
type storeQueue struct {
	mu      sync.Mutex
	last    <-chan struct{}
	overdue atomic.Bool
}

// enqueue starts op behind the earlier ones and returns a function that waits for its result.
func (q *storeQueue) enqueue(ctx context.Context, op func(context.Context) error) (wait func() error) {
	done, result := make(chan struct{}), make(chan error, 1)
	q.mu.Lock()
	previous := q.last
	q.last = done
	q.mu.Unlock()
	go func() {
		defer close(done)
		if previous != nil {
			<-previous
		}
		ctx, cancel := context.WithTimeout(ctx, storeLimit)
		defer cancel()
		err := guarded(ctx, op)
		q.overdue.Store(false)
		result <- err
	}()
	return func() error {
		if q.overdue.Load() {
			return errStoreOverdue
		}
		limit := time.NewTimer(storeLimit)
		defer limit.Stop()
		select {
		case err := <-result:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			q.overdue.Store(true)
			return fmt.Errorf("no answer within %s", storeLimit)
		}
	}
}

// guarded turns a panic of the store into an error: it would end the process, since no caller is above it.
func guarded(ctx context.Context, op func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the store panicked: %v", r)
		}
	}()
	return op(ctx)
}
