package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/cmd/azmtls/internal/simulate"
	"github.com/stretchr/testify/require"
)

// simulating runs the command, hands the lines that it begins with to a function, and interrupts it when that returns.
// It returns what the command wrote to standard error, and its exit code.
func simulating(t *testing.T, lines int, meanwhile func(lines []string), args ...string) (errs string, code int) {
	t.Helper()
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	root := newRootCommand()
	out, in := io.Pipe()
	defer out.Close() // lest a write blocks when the test has failed
	var stderr bytes.Buffer
	root.SetArgs(append([]string{"simulate"}, args...))
	root.SetOut(in)
	root.SetErr(&stderr)
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, root)
		_ = in.Close()
	}()
	read := bufio.NewScanner(out)
	var said []string
	for len(said) < lines && read.Scan() {
		said = append(said, read.Text())
	}
	if len(said) == lines {
		meanwhile(said)
	}
	interrupt()
	code = <-ended
	require.Len(t, said, lines, stderr.String())
	return stderr.String(), code
}

// What the command writes of where it listens, for people and for programs, and what it says of a request that the
// services refuse. An interrupt is its ordinary end.
func TestSimulate(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	errs, code := simulating(t, 5, func(lines []string) {
		text := strings.Join(lines, "\n")
		require.Regexp(t, `^IMDS      http://127\.0\.0\.1:\d+
Token     https://127\.0\.0\.1:\d+
Resource  https://my\.vault\.azure\.net at 127\.0\.0\.1:\d+
Control   http://127\.0\.0\.1:\d+
Authority /`, text)
		require.FileExists(t, ca)
	}, "--vault", "my.vault.azure.net", "--ca-out", ca)
	require.Equal(t, exitOK, code)
	require.Empty(t, errs)

	errs, code = simulating(t, 1, func(lines []string) {
		var a simulate.Addresses
		require.NoError(t, json.Unmarshal([]byte(lines[0]), &a))
		require.Empty(t, a.Authority)
		require.Empty(t, a.ResourceAddress, "the URL leads there")
		resp, err := http.Get(a.IMDS + "/metadata/instance")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}, "--json", "--tls", "1.3", "--user-assigned",
		"11111111-2222-3333-4444-555555555555,/subscriptions/s,22222222-3333-4444-5555-666666666666")
	require.Equal(t, exitOK, code)
	require.Equal(t, "rejected: metadata: unknown path /metadata/instance\n", errs)
}

// Whoever typed something wrong is told so, before anything listens.
func TestSimulateUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "faults.json")
	require.NoError(t, os.WriteFile(file, []byte(`[{"endpoint":"moon","do":"reset"}]`), 0o600))
	for args, says := range map[string]string{
		"--tls 1.1":                             "1.2 or 1.3",
		"--listen 0.0.0.0:0":                    "not loopback",
		"--control :0":                          "not loopback",
		"--listen here":                         "no address",
		"--tenant contoso":                      `"contoso" is not a GUID`,
		"--client 11111111":                     "not a GUID",
		"--user-assigned mine":                  "not a GUID",
		"--user-assigned ,/subscriptions/s":     "has a client id",
		"--faults " + file:                      "no such endpoint",
		"--faults " + filepath.Join(file, "no"): "faults.json",
	} {
		out, errs, code := command(t, nil, append([]string{"simulate"}, strings.Fields(args)...)...)
		require.Equal(t, exitUsage, code, args)
		require.Contains(t, errs, says, args)
		require.Empty(t, out, args)
	}
}

// An identity is its client id, then the others in any order.
func TestAssigned(t *testing.T) {
	i := assigned("c,/r,o")
	require.Equal(t, assigned("c,o,/r"), i)
	require.Equal(t, "c", i.ClientID)
	require.Equal(t, "o", i.ObjectID)
	require.Equal(t, "/r", i.ResourceID)
}
