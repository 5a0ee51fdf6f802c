package winstore

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// RoleVariable names the environment variable that gives a process its role.
const RoleVariable = "AZMTLS_TEST_ROLE"

// Roles are what another process does in a test.
var Roles = map[string]func(arguments []string) error{
	"hold":    hold,
	"abandon": abandon,
	"stress":  stress,
	"attest":  attest,
	"plant":   plantFile,
	"save":    saveForEver,
}

// Child is another process. It gets the lines that the test sends, and the test those that it prints.
type Child struct {
	t      testing.TB
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	errors *strings.Builder
}

// StartChild starts a process in a role.
func StartChild(t testing.TB, role string, arguments ...string) *Child {
	program, err := os.Executable()
	require.NoError(t, err)
	return StartProgram(t, program, role, arguments...)
}

// StartProgram starts another program, or a copy of this one in a role.
func StartProgram(t testing.TB, program, role string, arguments ...string) *Child {
	c := &Child{t: t, cmd: exec.Command(program, arguments...), errors: &strings.Builder{}}
	c.cmd.Env = append(os.Environ(), RoleVariable+"="+role)
	c.cmd.Stderr = c.errors
	input, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	c.input = input
	output, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.output = bufio.NewReader(output)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// Line returns the next line that the child prints.
func (c *Child) Line() string {
	line, err := c.output.ReadString('\n')
	require.NoError(c.t, err, "the child says: %s", c.errors)
	return strings.TrimSpace(line)
}

// Wait lets the child end and returns the rest of what it printed.
func (c *Child) Wait() string {
	_ = c.input.Close()
	rest, err := io.ReadAll(c.output)
	require.NoError(c.t, err)
	require.NoError(c.t, c.cmd.Wait(), "the child says: %s", c.errors)
	return string(rest)
}

// Kill kills the child (TerminateProcess) and waits for its end.
func (c *Child) Kill() {
	require.NoError(c.t, c.cmd.Process.Kill())
	_ = c.cmd.Wait()
}
