package main

import (
	"context"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/doctor"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

const id = "11111111-2222-3333-4444-555555555555"

// startTPM runs a TPM until the test ends.
func startTPM(t *testing.T) *swtpm.TPM {
	t.Helper()
	if err := swtpm.Available(); err != nil {
		if os.Getenv("AZMTLS_REAL_PARTS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	tpm, err := swtpm.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(tpm.Stop)
	return tpm
}

// store puts bindings over keys in a TPM into the store that the commands find, as programs did before.
func store(t *testing.T, ids ...azidentity.ManagedIDKind) {
	t.Helper()
	tpm := startTPM(t)
	folder := t.TempDir()
	t.Setenv("STATE_DIRECTORY", folder)
	server := imdstest.New(t, nil)
	for _, id := range ids {
		options := server.CredentialOptions()
		options.ID = id
		options.KeyProvider, options.Store = tpmstore.Keys{Device: tpm.Socket, Folder: folder}, tpmstore.Store{Folder: folder}
		cred, err := azmtls.NewImdsV2MtlsCredential(options)
		require.NoError(t, err)
		_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
		require.NoError(t, err)
		require.NoError(t, cred.Close())
	}
}

// List shows what programs stored, masked unless it is asked for whole aliases. Purge deletes what is named, and only
// when somebody agrees.
func TestListAndPurge(t *testing.T) {
	store(t, nil, azidentity.ClientID(id))
	stored := func() int {
		out, _, code := command(t, nil, "list")
		require.Equal(t, exitOK, code)
		require.NotContains(t, out, id)
		return strings.Count(out, ": live")
	}
	require.Equal(t, 2, stored())
	out, _, _ := command(t, nil, "list", "--full")
	require.Contains(t, out, id+"#att=0\n")
	require.Contains(t, out, "key TPM")

	_, errs, code := command(t, os.Stdin, "purge", "--all")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "--yes")
	out, _, code = command(t, strings.NewReader("no\n"), "purge", "--all")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "[y/N]")
	_, errs, code = command(t, nil, "purge", "--yes", "--alias", "11111111")
	require.Equal(t, exitOK, code)
	require.Contains(t, errs, "Nothing of that is stored")
	require.Equal(t, 2, stored(), "nobody agreed")

	out, _, code = command(t, strings.NewReader("y\n"), "purge", "--alias", id+"#att=0")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "deleted what was stored for 111111…#att=0")
	require.Equal(t, 1, stored(), "the neighbour stays")
	_, _, code = command(t, nil, "purge", "--all", "--yes")
	require.Equal(t, exitOK, code)
	require.Zero(t, stored())
}

// The doctor on the real machine looks at the store and changes nothing in it.
func TestDoctorLeavesTheStoreAlone(t *testing.T) {
	store(t, nil)
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1") // nobody
	before, err := os.ReadDir(os.Getenv("STATE_DIRECTORY") + "/azmtls")
	require.NoError(t, err)
	out, _, code := command(t, nil, "doctor")
	require.Equal(t, exitProblem, code)
	require.Contains(t, out, "nothing answers at http://127.0.0.1:1")
	require.Contains(t, out, "1 binding\n")
	after, err := os.ReadDir(os.Getenv("STATE_DIRECTORY") + "/azmtls")
	require.NoError(t, err)
	require.Equal(t, len(before), len(after))
}

// keysOfTheMachine count how often they are asked.
type keysOfTheMachine struct {
	mtls.KeyProvider
	asked int
}

func (k *keysOfTheMachine) Key(ctx context.Context) (mtls.Key, error) {
	k.asked++
	return k.KeyProvider.Key(ctx)
}

// A trial token changes neither the store nor the keys, also when the stored binding is refused.
func TestTrialChangesNothing(t *testing.T) {
	tpm := startTPM(t)
	folder := t.TempDir()
	server := imdstest.New(t, nil)
	keys := &keysOfTheMachine{KeyProvider: tpmstore.Keys{Device: tpm.Socket, Folder: folder}}
	options := server.CredentialOptions()
	options.KeyProvider, options.Store = keys, tpmstore.Store{Folder: folder}
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	require.NoError(t, err)
	_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	require.NoError(t, err)
	require.NoError(t, cred.Close())
	// A provider that is asked would make it anew.
	require.NoError(t, os.Remove(filepath.Join(folder, "azmtls", "key.pem")))

	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1})
	m := &machine.Machine{Endpoint: server.IMDSURL(), Options: *server.CredentialOptions()}
	m.Options.KeyProvider, m.Options.Store = keys, tpmstore.Store{Folder: folder}
	keys.asked = 0
	before := contents(t, folder)
	report := doctor.Examine(t.Context(), m, doctor.Options{Scope: "https://vault.azure.net/.default"})
	require.True(t, report.Healthy)
	require.Zero(t, keys.asked)
	require.Equal(t, before, contents(t, folder))
	for _, f := range report.Findings {
		if f.ID == "token" {
			require.Equal(t, doctor.Note, f.State)
			require.Contains(t, f.Advice, "It is still there")
		}
	}
}

// contents returns the files of a folder, with what is in them.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	}))
	return files
}

// The doctor takes little longer than IMDS gets for an answer, where somebody takes the connection and says nothing.
func TestDoctorIsNotKeptWaiting(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://"+listener.Addr().String())
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	start := time.Now()
	out, _, code := command(t, nil, "doctor")
	require.Equal(t, exitProblem, code)
	require.Contains(t, out, "nothing answers")
	require.Less(t, time.Since(start), 7*time.Second, "4 s once, not twice")
}

// On a terminal there is colour and progress, unless NO_COLOR is set. On a pipe there is neither.
func TestTerminal(t *testing.T) {
	for _, noColor := range []string{"", "1"} {
		t.Setenv("NO_COLOR", noColor)
		t.Setenv("TERM", "xterm")
		ours, theirs, err := pty.Open()
		require.NoError(t, err)
		shown := make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(ours) // ends with an error when the terminal is closed
			shown <- string(text)
		}()
		root := newRootCommand()
		root.SetArgs([]string{"doctor", "--simulate"})
		root.SetOut(theirs)
		root.SetErr(theirs)
		require.Equal(t, exitOK, run(t.Context(), root))
		require.NoError(t, theirs.Close())
		text := <-shown
		require.NoError(t, ours.Close())
		require.Equal(t, noColor == "", strings.Contains(text, "\x1b[32mok"))
		require.Contains(t, text, "Trial token …", "what is looked at")
	}
}
