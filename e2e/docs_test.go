package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pages are the documents whose commands and code are for readers to copy.
var pages = []string{
	"README.md", "MIGRATION.md", "TROUBLESHOOTING.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md",
	"cmd/azmtls/README.md",
	"examples/otel/README.md", "examples/prometheus/README.md", "examples/grpc/README.md",
}

// block is a block of code of a page.
type block struct{ page, language, text string }

func blocks(t *testing.T) (all []block) {
	t.Helper()
	fence := regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join("..", page))
		require.NoError(t, err)
		for _, found := range fence.FindAllStringSubmatch(string(text), -1) {
			all = append(all, block{page, found[1], found[2]})
		}
	}
	return all
}

// around is what stands around a block of Go: the packages that readers import, and what they have already.
const around = `package docs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

var (
	_ context.Context
	_ = fmt.Println
	_ *slog.Logger
	_ = os.Getenv
	_ azcore.TokenCredential
	_ log.Event
	_ azidentity.ClientID
	_ azblob.Client
	_ imdstest.Server
	_ = require.NoError
)

func block%d(
	t *testing.T, cred *azmtls.ManagedIdentityCredential, options azmtls.ManagedIdentityCredentialOptions,
) (any, error) {
	var sources []azcore.TokenCredential
	_ = sources
	{
%s
	}
	return nil, nil
}
`

// TestGoOfPages: the Go of every page compiles, but for what a reader has yet to use.
func TestGoOfPages(t *testing.T) {
	dir, err := os.MkdirTemp(".", "docs")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	n := 0
	for _, b := range blocks(t) {
		if b.language != "go" {
			continue
		}
		n++
		code := strings.ReplaceAll(b.text, "return err\n", "return nil, err\n")
		file := filepath.Join(dir, fmt.Sprintf("block%d.go", n))
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, around, n, code), 0o600))
	}
	require.Greater(t, n, 8)
	out, err := exec.Command("go", "build", "-gcflags=-e", "./"+dir).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		unused := strings.Contains(line, "declared and not used")
		require.True(t, unused || strings.HasPrefix(line, "#"), "%s\n%s", line, err)
	}
}

// TestCommandsOfPages: every command of a page is one that make runs, or is run here.
func TestCommandsOfPages(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "Makefile"))
	require.NoError(t, err)
	ran := 0
	for _, b := range blocks(t) {
		if b.language != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			switch fields := strings.Fields(line); {
			case fields[0] == "make":
				require.Contains(t, string(makefile), "\n"+fields[1]+":", b.page)
			case strings.HasPrefix(line, "go get github.com/azmtls/azmtls"),
				strings.HasPrefix(line, "go install github.com/azmtls/azmtls/"):
				folder := strings.TrimPrefix(strings.TrimSuffix(fields[2], "@latest"), "github.com/azmtls/azmtls")
				_, err := os.Stat(filepath.Join("..", folder, "go.mod"))
				require.NoError(t, err, line)
			case strings.HasPrefix(line, "go run -C cmd/azmtls . "):
				cmd := exec.Command(fields[0], fields[1:]...)
				cmd.Dir = ".."
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s: %s\n%s", b.page, line, out)
				ran++
			case strings.HasPrefix(line, "go run ./examples/"):
				require.Contains(t, string(makefile), "\t"+line+"\n", b.page)
			case strings.HasPrefix(line, "go run ."): // of an example that is a module of its own: make runs them all
				name := filepath.Base(filepath.Dir(b.page))
				require.Regexp(t, `for example in .*\b`+name+`\b`, string(makefile))
			case fields[0] == "curl":
				curl := exec.Command("sh", "-c", line+" --silent --show-error --fail")
				curl.Env = append(os.Environ(), "CONTROL="+startSimulator(t).Control)
				out, err := curl.CombinedOutput()
				require.NoError(t, err, "%s: %s\n%s", b.page, line, out)
			case fields[0] == "azmtls" && fields[1] == "simulate": // TestNode and TestByHand run it
			default:
				t.Errorf("%s: nothing runs %q", b.page, line)
			}
		}
	}
	require.GreaterOrEqual(t, ran, 4)
}

// TestLinksOfPages: what a page links to within the project is there.
func TestLinksOfPages(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range append([]string{"docs/servers.md"}, pages...) {
		text, err := os.ReadFile(filepath.Join("..", page))
		require.NoError(t, err)
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			_, err := os.Stat(filepath.Join("..", filepath.Dir(page), found[1]))
			require.NoError(t, err, "%s links to %s", page, found[1])
		}
	}
}

// TestLengthOfReadme: whoever opens the project reads a page, not a book.
func TestLengthOfReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	require.NoError(t, err)
	require.LessOrEqual(t, strings.Count(string(text), "\n"), 250)
}
