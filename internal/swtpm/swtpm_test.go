package swtpm_test

import (
	"net"
	"os"
	"testing"

	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/stretchr/testify/require"
)

// The TPM answers when it has started, on a socket or a port, does not when it has stopped, and starts again, wiped or
// not.
func TestTPM(t *testing.T) {
	if err := swtpm.Available(); err != nil {
		if os.Getenv("AZMTLS_REAL_PARTS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "tpm")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	tpm, err := swtpm.Start(dir)
	require.NoError(t, err)
	defer func() { tpm.Stop() }()
	answers := func() bool {
		c, err := net.Dial("unix", tpm.Socket)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	require.True(t, answers())
	tpm.Stop()
	require.False(t, answers())
	require.NoError(t, tpm.Start())
	require.True(t, answers())
	require.NoError(t, tpm.Wipe())
	require.True(t, answers())
	tpm.Stop()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	require.NoError(t, tpm.StartTCP(port))
	_, err = swtpm.Start("/dev/null")
	require.Error(t, err)
}

// Where there is no swtpm, what to do is said.
func TestNotAvailable(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, swtpm.Available(), "apt-get install swtpm")
}
