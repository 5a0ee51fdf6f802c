package tpmstore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/azmtls/azmtls/internal/secrets"
	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/stretchr/testify/require"
)

// Hunt searches the log that all tests of this folder write.
var Hunt secrets.Search

// What the tests of the whole credential, in package tpmstore_test, need of those of this one.

const RoleVariable = roleVariable

var Roles = roles

func StartTPM(t testing.TB) *swtpm.TPM { return startTPM(t) }

// Managed returns the socket of a resource manager before a TPM.
func Managed(t testing.TB, upstream string) string {
	p := startProxy(t, upstream)
	p.set(func(p *proxy) { p.manages = true })
	return p.Socket
}

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

// StartChild has another process play a role.
func StartChild(t testing.TB, role string, arguments ...string) *Child {
	return &Child{start(t, role, arguments...)}
}

// Child is another process.
type Child struct{ child *child }

// Kill kills it (SIGKILL) and waits for its end.
func (c *Child) Kill() { c.child.kill() }

// Wait lets it end and returns what it printed.
func (c *Child) Wait() string { return c.child.wait() }

// Temporaries returns the files half written in the folder of a store.
func Temporaries(t *testing.T, base string) []string {
	return temporaries(t, filepath.Join(base, folderName))
}

// Forget removes what the folder of a store holds, keys and bindings, as a new machine's holds nothing.
func Forget(t testing.TB, base string) {
	require.NoError(t, os.RemoveAll(filepath.Join(base, folderName)))
}
