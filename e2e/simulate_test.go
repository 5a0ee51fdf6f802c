package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// simulator is azmtls simulate, as a process of its own.
type simulator struct {
	*testing.T
	IMDS, Resource, Control, Authority string
}

func startSimulator(t *testing.T, args ...string) *simulator {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "azmtls")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "cmd", "azmtls")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	args = append([]string{"simulate", "--json", "--ca-out", filepath.Join(dir, "ca.pem")}, args...)
	cmd := exec.Command(program, args...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		require.NoError(t, cmd.Wait(), "it ends when it is interrupted")
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	s := &simulator{T: t}
	require.NoError(t, json.Unmarshal([]byte(line), s))
	return s
}

// control asks the control endpoint.
func (s *simulator) control(method, path, body string) string {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.Control+path, strings.NewReader(body))
	require.NoError(s, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(s, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	require.Less(s, resp.StatusCode, 300, string(text))
	return string(text)
}

// rejections returns what clients did that the real services refuse.
func (s *simulator) rejections() (found []string) {
	s.Helper()
	require.NoError(s, json.Unmarshal([]byte(s.control(http.MethodGet, "/rejections", "")), &found))
	return found
}

// TestNode: @azure/identity, which shares no code with us, gets tokens from the simulated IMDS v1, and meets its
// faults.
func TestNode(t *testing.T) {
	modules := os.Getenv("AZMTLS_NODE_MODULES")
	require.NotEmpty(t, modules,
		"AZMTLS_NODE_MODULES must name the folder of @azure/identity: run these tests by `make test`")
	const system, user = "11111111-2222-3333-4444-555555555555", "22222222-3333-4444-5555-666666666666"
	s := startSimulator(t, "--client", system, "--user-assigned", user)
	ask := func(arguments ...string) (token, failure string) {
		script, err := filepath.Abs(filepath.Join("testdata", "token.mjs"))
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), "node", append([]string{script, modules}, arguments...)...)
		cmd.Env = append(os.Environ(), "AZURE_POD_IDENTITY_AUTHORITY_HOST="+s.IMDS)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		require.NoError(t, err)
		var said struct {
			Token, Error string
			Expires      int64
		}
		require.NoError(t, json.Unmarshal(out, &said))
		if said.Error == "" {
			require.InDelta(t, time.Now().Add(time.Hour).UnixMilli(), said.Expires, 60_000)
		}
		return said.Token, said.Error
	}
	for _, id := range []string{"", user} {
		token, failure := ask("https://vault.azure.net/.default", id)
		require.Empty(t, failure)
		claims := jwt.MapClaims{}
		_, _, err := jwt.NewParser().ParseUnverified(token, claims)
		require.NoError(t, err)
		want := id
		if id == "" {
			want = system
		}
		require.Equal(t, want, claims["appid"])
		require.Equal(t, "https://vault.azure.net", claims["aud"])
	}
	_, failure := ask("https://vault.azure.net/.default", "33333333-4444-5555-6666-777777777777")
	require.Contains(t, failure, "Identity not found")
	require.Empty(t, s.rejections())

	s.control(http.MethodPost, "/faults",
		`{"endpoint":"v1","respond":{"status":403,"body":"{\"error\":\"forbidden_by_test\"}"}}`)
	_, failure = ask("https://vault.azure.net/.default")
	require.Contains(t, failure, "forbidden_by_test")
	s.control(http.MethodDelete, "/faults", "")
	s.control(http.MethodPost, "/faults", `{"endpoint":"v1","respond":{"status":500},"times":1}`)
	_, failure = ask("https://vault.azure.net/.default")
	require.Empty(t, failure, "it tries again")
}

// TestByHand: curl and openssl go all the way through IMDS v2, a script that shares no code with us. The simulator
// refuses the request as openssl writes it, and nothing else that the script does.
func TestByHand(t *testing.T) {
	s := startSimulator(t)
	for _, version := range []string{"1.2", "1.3"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join("testdata", "v2.sh"),
			s.IMDS, s.Resource, s.Authority, version, t.TempDir()).CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "token: mtls_pop\n")
		require.Contains(t, string(out), `"scheme":"mtls_pop"`)
	}
	const strict = "issue: the csr: its signature algorithm is not RSASSA-PSS in the accepted encoding"
	require.Equal(t, []string{strict, strict}, s.rejections())
	var counts struct{ Issued, TokenIssued, ResourceAuthorized int }
	require.NoError(t, json.Unmarshal([]byte(s.control(http.MethodGet, "/counts", "")), &counts))
	require.Equal(t, 2, counts.Issued)
	require.Equal(t, 2, counts.TokenIssued)
	require.Equal(t, 2, counts.ResourceAuthorized)
}
