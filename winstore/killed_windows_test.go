package winstore_test

import (
	"context"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/azmtls/azmtls/winstore"
	"github.com/stretchr/testify/require"
)

// Of two processes that begin on a new machine one is killed (TerminateProcess) at any moment: while it makes its key,
// holds the lock, is certified, saves, or gets its token. The other one gets its token, and so does the next, and the
// store holds one binding then: nobody has to mend anything.
func TestKilledWhileMinting(t *testing.T) {
	kills := 8
	if testing.Short() {
		kills = 2
	}
	m := newMachine(t)
	begin := time.Now()
	m.token()
	whole := time.Since(begin) // the life of a process that does it all
	for range kills {
		require.NoError(t, winstore.Store{}.DeleteAll(context.Background(), m.alias))
		victim, other := m.startToken(), m.startToken()
		time.Sleep(rand.N(2 * whole)) // the processes are others: there is no clock to inject
		victim.Kill()
		m.awaitToken(other)
		m.token()
		require.Len(t, m.stored(), 1)
	}
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		t.Logf(`RELIABILITY {"name":"crash","kills":%d,"survived":%d,"system":"windows, a credential"}`, kills, kills)
	}
}
