package tpmstore_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/stretchr/testify/require"
)

// Of several processes that begin on a new machine one is killed (SIGKILL) at any moment: while it makes its key in the
// TPM, holds the lock, is certified, saves, or gets its token. The others get theirs, and so does the next one, without
// a mint where a binding was left; nobody has to mend anything. A resource manager stands before the TPM, as on every
// Linux: without one, the keys that a process leaves loaded use up the TPM's memory, and no other may remove them.
func TestProcessIsKilled(t *testing.T) {
	const together = 3
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	m := newMachine(t, imdstest.Options{})
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", m.server.IMDSURL())
	managed := tpmstore.Managed(t, m.tpm.Socket)
	child := func() *tpmstore.Child {
		return tpmstore.StartChild(t, "token", managed, m.folder, m.authority)
	}
	begin := time.Now()
	m.anotherProcess()
	whole := time.Since(begin) // the life of a process that does it all
	var survived, unfinished int
	for range rounds {
		tpmstore.Forget(t, m.folder)
		victim := child()
		var others []*tpmstore.Child
		for range together - 1 {
			others = append(others, child())
		}
		time.Sleep(rand.N(together * whole)) // the processes are others: there is no clock to inject
		victim.Kill()
		for _, other := range others {
			require.Equal(t, "got a token\n", other.Wait())
		}
		left := tpmstore.Temporaries(t, m.folder)
		unfinished += len(left)
		require.LessOrEqual(t, len(left), 1)
		require.NotEmpty(t, m.stored())
		minted := m.server.Counts().Issued
		m.anotherProcess()
		require.Equal(t, minted, m.server.Counts().Issued, "it found what the others left")
		survived++
	}
	require.Empty(t, m.server.Rejections())
	t.Logf("%d of %d processes killed in %s, %d with a file half written",
		survived, rounds*(together+1), time.Since(begin).Round(time.Millisecond), unfinished)
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		line, err := json.Marshal(map[string]any{
			"name": "crash", "kills": rounds, "survived": survived, "system": "linux, a credential over swtpm",
		})
		require.NoError(t, err)
		t.Logf("RELIABILITY %s", line)
	}
}
