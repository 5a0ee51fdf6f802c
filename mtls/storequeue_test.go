package mtls

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// While an operation is overdue, none is taken, so that nothing piles up behind a store that hangs. When it has ended,
// the queue goes on.
func TestOverdueStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q storeQueue
		release, nothing := make(chan struct{}), func(context.Context) error { return nil }
		hangs := q.enqueue(t.Context(), func(context.Context) error {
			<-release
			return nil
		})
		require.ErrorContains(t, hangs(), "no answer within")
		require.ErrorIs(t, q.enqueue(t.Context(), nothing)(), errStoreOverdue)
		close(release)
		synctest.Wait()
		require.NoError(t, q.enqueue(t.Context(), nothing)())
	})
}

// A save that comes behind a delete waits for it: otherwise the delete could remove what was saved.
func TestStoreOperationsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q storeQueue
		release, order := make(chan struct{}), make(chan string, 2)
		deleted := q.enqueue(t.Context(), func(context.Context) error {
			<-release
			order <- "delete"
			return nil
		})
		saved := q.enqueue(t.Context(), func(context.Context) error {
			order <- "save"
			return nil
		})
		refused := q.enqueue(t.Context(), func(context.Context) error { return nil })
		require.ErrorIs(t, refused(), errStoreOverdue, "one runs, one waits")
		synctest.Wait()
		require.Empty(t, order)
		close(release)
		require.NoError(t, saved())
		require.NoError(t, deleted())
		require.Equal(t, "delete", <-order)
		require.Equal(t, "save", <-order)
	})
}
