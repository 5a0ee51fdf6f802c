package tpmstore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/stretchr/testify/require"
)

// What the tests of the whole credential, in package tpmstore_test, need of those of this one.

const RoleVariable = roleVariable

var Roles = roles

func StartTPM(t testing.TB) *swtpm.TPM { return startTPM(t) }

// RunChild has another process play a role and returns what it says.
func RunChild(t testing.TB, role string, arguments ...string) string {
	return start(t, role, arguments...).wait()
}

// Logged returns the lines of the log that hold a text, until the test ends.
func Logged(t testing.TB, text string) func() []string { return logged(t, text) }

// Stored returns the file of an alias, and the thumbprint of the binding in it; empty if there is none.
func Stored(t testing.TB, base, alias string) (file, thumbprint string) {
	file = filepath.Join(base, folderName, fileName(alias))
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return file, ""
	}
	require.NoError(t, err)
	r, err := decodeRecord(data)
	require.NoError(t, err)
	b, err := r.binding(alias)
	require.NoError(t, err)
	return file, b.Thumbprint()
}
