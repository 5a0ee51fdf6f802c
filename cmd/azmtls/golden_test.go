package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/azmtls/azmtls/internal/secrets"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hunt searches all that the commands write.
var hunt secrets.Search

func TestMain(m *testing.M) { os.Exit(hunt.Run(m, "cmd/azmtls")) }

// command runs the program as a user does, without a terminal, and returns what it wrote and its exit code.
func command(t *testing.T, in io.Reader, args ...string) (out, errs string, code int) {
	t.Helper()
	root := newRootCommand()
	var stdout, stderr bytes.Buffer
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	code = run(context.WithoutCancel(t.Context()), root)
	for _, text := range []string{stdout.String(), stderr.String()} {
		if !slices.Contains(args, "--print") && !slices.Contains(args, "--full") {
			hunt.Text(text)
		}
	}
	return stdout.String(), stderr.String(), code
}

// varying is what differs from run to run, and what stands for it in a golden file.
var varying = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z| UTC)?`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "DATE"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "GUID"},
	{regexp.MustCompile(`(certificate sent (true|false)): .*`), "$1: HOW"},
	{regexp.MustCompile(`after [\d.]+m?s`), "after SOME TIME"},
	{regexp.MustCompile(`"seconds": [\d.e-]+`), `"seconds": 0`},
	{regexp.MustCompile(`\(in \d+h\d+m0s\)`), "(in SOME TIME)"},
	{regexp.MustCompile(`(on |"platform": ")(linux|windows|darwin)/\w+`), "${1}SYSTEM"},
}

// masked is what is left of an identifier or a thumbprint.
var masked = regexp.MustCompile(`[\w-]{6}…`)

// beside are two stages that run at the same time and end in either order.
var beside = regexp.MustCompile(`(?m)^(.*key done.*)\n(.*metadata done.*)\n`)

func steady(text string) string {
	for _, v := range varying {
		text = v.what.ReplaceAllString(text, v.with)
	}
	text = masked.ReplaceAllStringFunc(text, func(m string) string {
		if m == "system…" {
			return m
		}
		return "MASKED…"
	})
	return beside.ReplaceAllString(text, "$2\n$1\n")
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	text = steady(text)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}
