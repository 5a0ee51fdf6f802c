package simulate_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/simulate"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// running is a simulator as another process meets it.
type running struct {
	*testing.T
	simulate.Addresses
	stop     func()
	mu       sync.Mutex
	rejected []string
}

func start(t *testing.T, c simulate.Config) *running {
	t.Helper()
	c.Listen, c.Control = "127.0.0.1:0", "127.0.0.1:0"
	r := &running{T: t}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan simulate.Addresses, 1), make(chan error, 1)
	go func() {
		ended <- simulate.Run(ctx, c, func(a simulate.Addresses) { started <- a }, func(rejection imdstest.Rejection) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.rejected = append(r.rejected, rejection.String())
		})
	}()
	select {
	case r.Addresses = <-started:
	case err := <-ended:
		require.NoError(t, err)
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(r.stop)
	return r
}

// control sends a request to the control endpoint.
func (r *running) control(method, path, body string) (int, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.Control+path, strings.NewReader(body))
	require.NoError(r, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(r, err)
	return resp.StatusCode, string(text)
}

// token gets one as another process would: by the environment, and the authority's file.
func (r *running) token() error {
	r.Helper()
	r.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", r.IMDS)
	text, err := os.ReadFile(r.Authority)
	require.NoError(r, err)
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(r, err)
	options := azmtls.ImdsV2MtlsCredentialOptions{
		KeyProvider: mtls.SoftwareKeys{}, Store: mtls.NoStore{}, Cache: &mtls.Cache{}, MTLSTransport: trusting(certificate),
	}
	options.Retry.MaxRetries = -1
	cred, err := azmtls.NewImdsV2MtlsCredential(&options)
	require.NoError(r, err)
	defer cred.Close()
	_, err = cred.GetToken(r.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	return err
}

// A simulator serves another process, is steered by it, says what it counted, and ends without a trace.
func TestRun(t *testing.T) {
	before := goleak.IgnoreCurrent()
	r := start(t, simulate.Config{Authority: filepath.Join(t.TempDir(), "ca.pem")})
	require.NoError(t, r.token())

	status, body := r.control(http.MethodPost, "/faults", `{"endpoint":"token","respond":{"status":418,"body":"tea"}}`)
	require.Equal(t, http.StatusCreated, status)
	require.JSONEq(t, `{"faults":[1]}`, body)
	require.ErrorContains(t, r.token(), "418")
	status, _ = r.control(http.MethodDelete, "/faults/1", "")
	require.Equal(t, http.StatusNoContent, status)
	require.NoError(t, r.token())
	status, _ = r.control(http.MethodDelete, "/faults/1", "")
	require.Equal(t, http.StatusNotFound, status)

	status, body = r.control(http.MethodPost, "/faults", `[]`)
	require.Equal(t, http.StatusCreated, status)
	require.JSONEq(t, `{"faults":[]}`, body)
	status, _ = r.control(http.MethodPost, "/faults", "")
	require.Equal(t, http.StatusBadRequest, status)
	status, _ = r.control(http.MethodPost, "/faults",
		`[{"endpoint":"token","at":"certificate","alert":48,"times":1},{"endpoint":"metadata","respond":{"status":404}}]`)
	require.Equal(t, http.StatusCreated, status)
	require.ErrorContains(t, r.token(), "has no version 2")
	status, _ = r.control(http.MethodDelete, "/faults", "")
	require.Equal(t, http.StatusNoContent, status)
	require.NoError(t, r.token())

	many := "[" + strings.Repeat(`{"endpoint":"token","do":"hang"},`, 500) + `{"endpoint":"token","do":"hang"}]`
	status, _ = r.control(http.MethodPost, "/faults", many)
	require.Equal(t, http.StatusCreated, status)
	status, body = r.control(http.MethodPost, "/faults", many)
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, body, "there are 501 faults")
	_, _ = r.control(http.MethodDelete, "/faults", "")

	_, body = r.control(http.MethodGet, "/counts", "")
	var counts imdstest.Counts
	require.NoError(t, json.Unmarshal([]byte(body), &counts))
	require.Equal(t, 3, counts.TokenIssued)
	require.Equal(t, 2, counts.Faults)

	_, body = r.control(http.MethodGet, "/rejections", "")
	require.JSONEq(t, `[]`, body)
	resp, err := http.Get(r.IMDS + "/metadata/instance")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	_, body = r.control(http.MethodGet, "/rejections", "")
	require.JSONEq(t, `["metadata: unknown path /metadata/instance"]`, body)

	status, _ = r.control(http.MethodPost, "/faults", `{"endpoint":"v1","do":"hang"}`)
	require.Equal(t, http.StatusCreated, status)
	hanging := make(chan error, 1)
	go func() {
		_, err := http.Get(r.IMDS + "/metadata/identity/oauth2/token")
		hanging <- err
	}()
	require.Eventually(t, func() bool {
		_, body := r.control(http.MethodGet, "/counts", "")
		return strings.Contains(body, `"Faults":3`)
	}, 10*time.Second, 10*time.Millisecond)
	r.stop()
	require.Error(t, <-hanging, "the end does not wait for those who hang")
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, []string{"metadata: unknown path /metadata/instance"}, r.rejected, "it was told of")
	goleak.VerifyNone(t, before)
}

// What listens is reached by this machine alone, unless somebody wants otherwise.
func TestListensOnLoopbackOnly(t *testing.T) {
	for _, c := range []simulate.Config{
		{Listen: "0.0.0.0:0", Control: "127.0.0.1:0"}, {Listen: "127.0.0.1:0", Control: ":0"},
		{Listen: "192.0.2.1:0", Control: "127.0.0.1:0"}, {Listen: "here", Control: "127.0.0.1:0"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := simulate.Run(ctx, c, func(simulate.Addresses) { t.Error("it listens") }, nil)
		require.Error(t, err)
		require.NoError(t, ctx.Err())
		cancel()
	}
}

// Every kind of fault of imdstest can be written down. What makes no sense is refused with a reason.
func TestReadFaults(t *testing.T) {
	for text, want := range map[string]string{
		`{"endpoint":"token","at":"connect","do":"reset"}`:                             "",
		`{"endpoint":"resource","at":"body","do":"eof","rate":0.5,"skip":1}`:           "",
		`{"endpoint":"token","do":"close_notify"}`:                                     "",
		`{"endpoint":"issue","do":"hang"}`:                                             "",
		`{"endpoint":"issue","at":"answer","do":"truncate"}`:                           "",
		`{"endpoint":"v1","do":"malformed"}`:                                           "",
		`{"endpoint":"v1","do":"oversized"}`:                                           "",
		`{"endpoint":"metadata","do":"redirect"}`:                                      "",
		`{"endpoint":"issue","at":"answer","do":"foreign_key"}`:                        "",
		`{"endpoint":"token","at":"hello","alert":40}`:                                 "",
		`{"endpoint":"token","delay":"1.5s"}`:                                          "",
		`{"endpoint":"issue","respond":{"status":429,"retry_after":"2m"}}`:             "",
		`{"endpoint":"token","entra":{"error":"invalid_client","aadsts":"700027"}}`:    "",
		`{"endpoint":"token","at":"answer","edit":{"token_type":null,"refresh_in":1}}`: "",
		`{"endpoint":"metadata","at":"answer","set_header":{"server":null}}`:           "",
		`[]`:      "",
		" \n[ ] ": "",

		``:                                      "JSON",
		`null`:                                  "exactly one",
		`[] []`:                                 "something follows",
		`{"endpoint":"v1","do":"eof"},`:         "something follows",
		`{"endpoint":"v1","do":"eof"}{}`:        "something follows",
		strings.Repeat(" ", 1<<20) + `[]`:       "more than",
		`{"endpoint":"v1","do":"eof","rate":2}`: "share",
		`{"endpoint":"v1","do":"eof","times":-1}`:                  "counts of calls",
		`{"endpoint":"moon","do":"reset"}`:                         "no such endpoint",
		`{"endpoint":"token","at":"noon","do":"reset"}`:            `no stage "noon"`,
		`{"endpoint":"token","do":"explode"}`:                      `no action "explode"`,
		`{"endpoint":"token"}`:                                     "exactly one",
		`{"endpoint":"token","do":"reset","alert":48}`:             "exactly one",
		`{"endpoint":"token","delay":"soon"}`:                      "duration",
		`{"endpoint":"token","respond":{"retry_after":"soon"}}`:    "duration",
		`{"endpoint":"metadata","at":"hello","do":"reset"}`:        "plain HTTP",
		`{"endpoint":"token","do":"reset","tmies":1}`:              "tmies",
		`[{"endpoint":"token","do":"reset"},{"endpoint":"token"}]`: "fault 2",
		`{`: "JSON",
	} {
		_, err := simulate.ReadFaults(bytes.NewReader([]byte(text)))
		if want == "" {
			require.NoError(t, err, text)
		} else {
			require.ErrorContains(t, err, want, text)
		}
	}
}

// An edit changes and deletes members of an answer.
func TestEdit(t *testing.T) {
	faults, err := simulate.ReadFaults(strings.NewReader(
		`{"endpoint":"metadata","at":"answer","edit":{"tenantId":null,"clientId":"x"}}`))
	require.NoError(t, err)
	answer := map[string]any{"tenantId": "t", "clientId": "c", "cuId": "u"}
	faults[0].Do.(imdstest.Edit)(answer)
	require.Equal(t, map[string]any{"clientId": "x", "cuId": "u"}, answer)
}

func trusting(certificate *x509.Certificate) *http.Transport {
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
}
