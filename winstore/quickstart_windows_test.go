package winstore_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/winstore"
	"github.com/stretchr/testify/require"
)

// The quickstart as a user runs it: its binding stays in CurrentUser\My, and a second run comes to terms with what the
// first left, which under Wine is a certificate without its key.
func TestQuickstart(t *testing.T) {
	program := os.Getenv("AZMTLS_QUICKSTART")
	if program == "" {
		t.Skip("AZMTLS_QUICKSTART names no program; `make test` builds examples/quickstart for Windows")
	}
	program, err := filepath.Abs(program)
	require.NoError(t, err)
	const alias = "/azmtls/examples/quickstart#att=0"
	t.Cleanup(func() { require.NoError(t, winstore.Store{}.DeleteAll(context.Background(), alias)) })
	run := func() (output, stored string) {
		said, err := exec.Command(program).CombinedOutput()
		require.NoError(t, err, "%s", said)
		found, err := winstore.Stored(alias)
		require.NoError(t, err)
		require.Len(t, found, 1, "%s", said)
		return string(said), found[0]
	}
	_, first := run()
	said, second := run()
	require.NotEqual(t, first, second)
	require.Contains(t, said, "so far: 1 mints", "for the dead certificate")
	require.Contains(t, said, "so far: 2 mints, 3 tokens", "and one for that which the servers refused")
	if winstore.UnderWine() {
		// At the start, and when the store is looked into for a newer one: no certificate finds its key there.
		require.Equal(t, 2, strings.Count(said, "it is orphaned"), "%s", said)
	}
}
