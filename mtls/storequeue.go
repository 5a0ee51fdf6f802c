package mtls

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/limits"
)

var errStoreOverdue = errors.New("the store has not answered an earlier call yet")

// storeQueue runs the store operations of one alias one at a time, in the order in which they came: a delete that came
// before a save never removes what was saved. Those who wait for one give up after limits.Store. While one runs, one
// may wait; while one is overdue, none is taken, so that a store that hangs for good holds up nobody and nothing piles
// up.
type storeQueue struct {
	mu      sync.Mutex
	last    <-chan struct{}
	pending int // running or waiting
	overdue bool
}

// enqueue starts op behind the earlier ones and returns a function that waits for its result. The operation does not
// end with its caller's context: what was begun for one is of use to all.
func (q *storeQueue) enqueue(ctx context.Context, op func(context.Context) error) (wait func() error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.overdue || q.pending > 1 {
		return func() error { return errStoreOverdue }
	}
	q.pending++
	previous, done, result := q.last, make(chan struct{}), make(chan error, 1)
	q.last = done
	go func() {
		defer close(done)
		if previous != nil {
			<-previous
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limits.Store)
		defer cancel()
		err := callers.Guard("the store", func() error { return op(ctx) })
		q.mu.Lock()
		q.pending--
		q.overdue = false
		q.mu.Unlock()
		result <- err
	}()
	return func() error {
		limit := time.NewTimer(limits.Store)
		defer limit.Stop()
		select {
		case err := <-result:
			return err
		case <-limit.C:
			q.mu.Lock()
			q.overdue = q.pending > 0
			q.mu.Unlock()
			return fmt.Errorf("no answer within %s", limits.Store)
		}
	}
}
