package azmtls_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// openHandles returns how many files and sockets the process has open. Those of Go's poller, which comes with the first
// connection and stays, do not count.
func openHandles(t *testing.T) (n int) {
	const folder = "/proc/self/fd"
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(folder, entry.Name())); err == nil &&
			!strings.HasPrefix(target, "anon_inode:") {
			n++
		}
	}
	return n
}
