package winstore

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/mtls"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// standIn returns the path of the stand-in for AttestationClientLib.dll, which is compiled before the tests.
func standIn(t *testing.T) string {
	path := os.Getenv("AZMTLS_ATTESTATION_DLL")
	if path == "" {
		t.Skip("AZMTLS_ATTESTATION_DLL names no library; `make test` compiles one from testdata/attestation.c")
	}
	full, err := filepath.Abs(path)
	require.NoError(t, err)
	return full
}

// guardedKey is a real key of CNG that passes for one of KeyGuard.
func guardedKey(t *testing.T) *key {
	k := softwareKey(t)
	k.strength = mtls.StrengthKeyGuard
	return k
}

func attestationJWT(t *testing.T, expires time.Time) string {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"exp": expires.Unix()}).
		SignedString([]byte("a key of nobody"))
	require.NoError(t, err)
	return token
}

func requestFor(k mtls.Key) mtls.AttestationRequest {
	return mtls.AttestationRequest{Endpoint: "https://attest.example", ClientID: clientID, Key: k}
}

// counter asks the stand-in how often it was called, or how many tokens it has not got back.
func counter(t *testing.T, a *KeyGuardAttestation, name string) int {
	handle, err := windows.LoadLibrary(a.Library)
	require.NoError(t, err)
	n, _, _ := (&windows.DLL{Handle: handle}).MustFindProc(name).Call()
	return int(int32(n))
}

// The token that the library gives for the key is used until shortly before it expires, for that key only, and given
// back.
func TestAttestation(t *testing.T) {
	now := time.Now()
	a := &KeyGuardAttestation{Library: standIn(t)}
	a.now = func() time.Time { return now }
	first := attestationJWT(t, now.Add(time.Hour))
	t.Setenv("ATTEST_JWT", first)
	k, request := guardedKey(t), func(k mtls.Key) (string, error) { return a.Attest(t.Context(), requestFor(k)) }

	var logged strings.Builder
	var mu sync.Mutex
	Hunt.Listen(t, func(_ log.Event, message string) {
		mu.Lock()
		defer mu.Unlock()
		logged.WriteString(message + "\n")
	})
	token, err := request(k)
	require.NoError(t, err)
	require.Equal(t, first, token)
	mu.Lock()
	require.Contains(t, logged.String(), "logFromThread, line 42", "the library logs from a thread of its own")
	require.NotContains(t, logged.String(), "secret")
	require.NotContains(t, logged.String(), first)
	mu.Unlock()
	calls := counter(t, a, "Calls")

	second := attestationJWT(t, now.Add(2*time.Hour))
	t.Setenv("ATTEST_JWT", second)
	now = now.Add(54 * time.Minute)
	token, err = request(k)
	require.NoError(t, err)
	require.Equal(t, first, token, "more than five minutes are left of it")
	require.Equal(t, calls, counter(t, a, "Calls"))

	now = now.Add(time.Minute)
	token, err = request(k)
	require.NoError(t, err)
	require.Equal(t, second, token)
	require.Equal(t, calls+1, counter(t, a, "Calls"))

	_, err = request(guardedKey(t))
	require.NoError(t, err)
	require.Equal(t, calls+2, counter(t, a, "Calls"), "another key")
	require.Zero(t, counter(t, a, "Outstanding"))
}

// Callers who want the token of one key at the same time share the call; who gives up does not wait.
func TestAttestationIsShared(t *testing.T) {
	a := &KeyGuardAttestation{Library: standIn(t)}
	t.Setenv("ATTEST_JWT", attestationJWT(t, time.Now().Add(time.Hour)))
	k := guardedKey(t)
	before := counter(t, a, "Calls")
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := a.Attest(context.Background(), requestFor(k)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, before+1, counter(t, a, "Calls"))

	k.mu.Lock() // the call cannot begin
	defer k.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.tokens = nil
	_, err := a.Attest(ctx, requestFor(k))
	require.ErrorIs(t, err, context.Canceled)
}

// A token that says nothing of its end is used once.
func TestAttestationWithoutExpiry(t *testing.T) {
	a := &KeyGuardAttestation{Library: standIn(t)}
	token, err := jwt.New(jwt.SigningMethodHS256).SignedString([]byte("a key of nobody"))
	require.NoError(t, err)
	t.Setenv("ATTEST_JWT", token)
	k, before := guardedKey(t), counter(t, a, "Calls")
	for range 2 {
		_, err := a.Attest(t.Context(), requestFor(k))
		require.NoError(t, err)
	}
	require.Equal(t, before+2, counter(t, a, "Calls"))
}

// No token is an error, whatever the reason, and what the library returned with it is given back.
func TestAttestationFails(t *testing.T) {
	good := attestationJWT(t, time.Now().Add(time.Hour))
	short, past := attestationJWT(t, time.Now().Add(attestationMargin)), attestationJWT(t, time.Now().Add(-time.Hour))
	for name, test := range map[string]struct {
		environment map[string]string
		edit        func(*mtls.AttestationRequest)
		want        string
	}{
		"no token":              {nil, nil, "no token"},
		"error":                 {map[string]string{"ATTEST_FAILS": "1"}, nil, "0x80090016"},
		"error and token":       {map[string]string{"ATTEST_FAILS": "1", "ATTEST_JWT": good}, nil, "0x80090016"},
		"expires soon":          {map[string]string{"ATTEST_JWT": short}, nil, "in less than 5m0s"},
		"expired":               {map[string]string{"ATTEST_JWT": past}, nil, "this machine's clock says"},
		"blank":                 {map[string]string{"ATTEST_JWT": " "}, nil, "no JWT"},
		"no JWT":                {map[string]string{"ATTEST_JWT": "secret"}, nil, "no JWT"},
		"software key":          {nil, func(r *mtls.AttestationRequest) { r.Key = softwareKey(t) }, "strength software"},
		"key of another":        {nil, func(r *mtls.AttestationRequest) { r.Key, _ = mtls.SoftwareKeys{}.Key(t.Context()) }, "winstore.Keys"},
		"no endpoint":           {nil, func(r *mtls.AttestationRequest) { r.Endpoint = "" }, "names no host"},
		"plain endpoint":        {nil, func(r *mtls.AttestationRequest) { r.Endpoint = "http://attest.example" }, "is not https"},
		"endpoint with a colon": {nil, func(r *mtls.AttestationRequest) { r.Endpoint += ":" }, "no valid port"},
		"NUL in the client":     {nil, func(r *mtls.AttestationRequest) { r.ClientID = "\x00" }, "invalid argument"},
		"closed key":            {nil, func(r *mtls.AttestationRequest) { _ = r.Key.(*key).Close() }, "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &KeyGuardAttestation{Library: standIn(t)}
			for key, value := range test.environment {
				t.Setenv(key, value)
			}
			request := requestFor(guardedKey(t))
			if test.edit != nil {
				test.edit(&request)
			}
			token, err := a.Attest(t.Context(), request)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "secret")
			require.Empty(t, token)
			require.Zero(t, counter(t, a, "Outstanding"))
		})
	}
}

// A library in the working directory, or on the PATH, may be anybody's. Beside the executable, it is the installer's.
// Other processes look for it, since this one has it already.
func TestAttestationLibraryIsLookedFor(t *testing.T) {
	library, elsewhere := standIn(t), t.TempDir()
	program, err := os.Executable()
	require.NoError(t, err)
	copyFile(t, library, filepath.Join(elsewhere, attestationDLL))
	t.Setenv("ATTEST_JWT", attestationJWT(t, time.Now().Add(time.Hour)))
	t.Setenv("PATH", elsewhere)
	t.Chdir(elsewhere)
	for path, want := range map[string]string{
		"":                    "(ERROR_MOD_NOT_FOUND)",
		attestationDLL:        "absolute path",
		`.\` + attestationDLL: "absolute path",
		`\` + attestationDLL:  "absolute path",
		library:               "attested",
	} {
		c := StartChild(t, "attest", path)
		require.Contains(t, c.Line(), want, "%q", path)
		c.Wait()
	}

	installed := filepath.Join(elsewhere, "program.exe")
	copyFile(t, program, installed)
	t.Chdir(filepath.Dir(program))
	c := StartProgram(t, installed, "attest", "")
	require.Equal(t, "attested", c.Line())
	c.Wait()
}

// attest is a process that has a key attested by the library of a path, or the installed one.
func attest(arguments []string) error {
	k, err := software.key(context.Background(), ncrypt{})
	if err != nil {
		return err
	}
	k.strength = mtls.StrengthKeyGuard
	if _, err := (&KeyGuardAttestation{Library: arguments[0]}).Attest(context.Background(), requestFor(k)); err != nil {
		fmt.Println(err)
		return nil
	}
	fmt.Println("attested")
	return nil
}

// A library that does not start is given back, and tried again by the next call.
func TestAttestationLibraryThatDoesNotStart(t *testing.T) {
	a := &KeyGuardAttestation{Library: standIn(t)}
	t.Setenv("ATTEST_INIT_FAILS", "1")
	t.Setenv("ATTEST_JWT", attestationJWT(t, time.Now().Add(time.Hour)))
	_, err := a.Attest(t.Context(), requestFor(guardedKey(t)))
	require.ErrorContains(t, err, "InitAttestationLib: 0x00001234")
	require.NoError(t, os.Unsetenv("ATTEST_INIT_FAILS"))
	_, err = a.Attest(t.Context(), requestFor(guardedKey(t)))
	require.NoError(t, err)

	notIt := &KeyGuardAttestation{Library: filepath.Join(os.Getenv("SystemRoot"), "System32", "crypt32.dll")}
	_, err = notIt.Attest(t.Context(), requestFor(guardedKey(t)))
	require.ErrorContains(t, err, "InitAttestationLib")
}

func copyFile(t *testing.T, from, to string) {
	source, err := os.Open(from)
	require.NoError(t, err)
	defer source.Close()
	target, err := os.Create(to)
	require.NoError(t, err)
	defer target.Close()
	_, err = io.Copy(target, source)
	require.NoError(t, err)
}
