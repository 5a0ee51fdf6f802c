package imds_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// metadata is a body as the live service writes it.
var metadata = func() string {
	body, err := os.ReadFile("../../testdata/imds/getplatformmetadata.json")
	if err != nil {
		panic(err)
	}
	return string(body)
}()

// answer is one answer of the fake service.
type answer struct {
	status int
	header http.Header
	body   string
}

// service answers in turn, the last answer again and again, and records what it was asked.
type service struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []answer
	requests []*http.Request
	bodies   []string
}

func serve(t *testing.T, answers ...answer) *service {
	s := &service{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, string(body))
		a := s.answers[min(len(s.requests), len(s.answers))-1]
		w.Header().Set("Server", "Microsoft-imds/1.0")
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(s.Close)
	return s
}

// client returns a client of the service that records how long it would have waited.
func (s *service) client(t *testing.T, edit func(*imds.Options)) (*imds.Client, *clock.Fake) {
	t.Helper()
	fake := clock.NewFake(time.Now())
	o := imds.Options{Endpoint: s.URL, Clock: fake.Clock()}
	if edit != nil {
		edit(&o)
	}
	c, err := imds.New(o)
	require.NoError(t, err)
	return c, fake
}

// The requests are exactly those that the live service accepts.
func TestRequests(t *testing.T) {
	s := serve(t, answer{status: 200, body: metadata}, answer{status: 400, body: "{}"})
	c, _ := s.client(t, func(o *imds.Options) { o.ID = imds.ID{Param: "mi_res_id", Value: "/subscriptions/a b&c=d"} })
	m, err := c.Metadata(t.Context())
	require.NoError(t, err)
	require.Equal(t, imds.Metadata{
		ClientID: "11111111-2222-3333-4444-555555555555", TenantID: "99999999-8888-7777-6666-555555555555",
		CuID:                imds.CuID{VMID: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"},
		AttestationEndpoint: "https://sharedeus.eus.attest.azure.net",
	}, m)
	_, err = c.Issue(t.Context(), []byte{0xfb, 0xff, 0x00}, "jwt", false)
	var response *azcore.ResponseError
	require.ErrorAs(t, err, &response)
	require.Equal(t, 400, response.StatusCode)

	ids := map[string]bool{}
	for i, want := range []struct{ method, path string }{
		{"GET", "/metadata/identity/getplatformmetadata"}, {"POST", "/metadata/identity/issuecredential"},
	} {
		r := s.requests[i]
		require.Equal(t, want.method, r.Method)
		require.Equal(t, want.path, r.URL.Path)
		require.Equal(t, "2.0", r.URL.Query().Get("cred-api-version"))
		require.Equal(t, "/subscriptions/a b&c=d", r.URL.Query().Get("mi_res_id"))
		require.Len(t, r.URL.Query(), 2)
		require.Equal(t, "true", r.Header.Get("Metadata"))
		require.NoError(t, uuid.Validate(r.Header.Get("x-ms-client-request-id")))
		ids[r.Header.Get("x-ms-client-request-id")] = true
	}
	require.Len(t, ids, 2, "every request has an id of its own")
	require.Equal(t, "application/json; charset=utf-8", s.requests[1].Header.Get("Content-Type"))
	require.JSONEq(t, `{"csr":"+/8A","attestation_token":"jwt"}`, s.bodies[1])

	_, _ = c.Issue(t.Context(), []byte{1}, "", false)
	require.JSONEq(t, `{"csr":"AQ=="}`, s.bodies[2], "no attestation_token rather than an empty one")
}

func TestCuID(t *testing.T) {
	require.Equal(t, `{"vmId":"a","vmssId":"b"}`, string(imds.CuID{VMID: "a", VMSSID: "b"}.JSON()))
	require.Equal(t, `{"vmssId":"b"}`, string(imds.CuID{VMSSID: "b"}.JSON()))
}

func seconds(n ...int) []time.Duration {
	out := make([]time.Duration, len(n))
	for i, n := range n {
		out[i] = time.Duration(n) * time.Second
	}
	return out
}

// The schedule is MSAL's.
func TestRetries(t *testing.T) {
	after := func(name, value string) http.Header { return http.Header{http.CanonicalHeaderKey(name): {value}} }
	updated := seconds(10, 10, 10, 10, 10, 10, 10)
	for name, test := range map[string]struct {
		answer   answer
		metadata []time.Duration
		issue    []time.Duration
	}{
		"404":                 {answer{status: 404}, nil, seconds(1, 2, 4)},
		"408":                 {answer{status: 408}, seconds(1, 2, 4), seconds(1, 2, 4)},
		"410":                 {answer{status: 410}, updated, updated},
		"429":                 {answer{status: 429}, seconds(1, 2, 4), seconds(1, 2, 4)},
		"500":                 {answer{status: 500}, seconds(1, 2, 4), seconds(1, 2, 4)},
		"504":                 {answer{status: 504}, seconds(1, 2, 4), seconds(1, 2, 4)},
		"400":                 {answer{status: 400}, nil, nil},
		"403":                 {answer{status: 403}, nil, nil},
		"Retry-After":         {answer{status: 429, header: after("Retry-After", "7")}, seconds(7, 7, 7), seconds(7, 7, 7)},
		"Retry-After of 410":  {answer{status: 410, header: after("Retry-After", "2")}, updated, updated},
		"the same as of 410":  {answer{status: 410, header: after("Retry-After", "10")}, updated, updated},
		"longer one of 410":   {answer{status: 410, header: after("Retry-After", "11")}, seconds(11), seconds(11)},
		"long one of 410":     {answer{status: 410, header: after("Retry-After", "70")}, seconds(70), seconds(70)},
		"too long one of 410": {answer{status: 410, header: after("Retry-After", "121")}, nil, nil},
		"retry-after-ms":      {answer{status: 503, header: after("retry-after-ms", "3000")}, seconds(3, 3, 4), seconds(3, 3, 4)},
		"501":                 {answer{status: 501}, nil, nil},
		"Retry-After of 0":    {answer{status: 429, header: after("Retry-After", "0")}, seconds(1, 2, 4), seconds(1, 2, 4)},
		"Retry-After too far": {answer{status: 429, header: after("Retry-After", "3600")}, nil, nil},
		"Retry-After of old":  {answer{status: 429, header: after("Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT")}, seconds(1, 2, 4), seconds(1, 2, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.answer)
			c, waits := s.client(t, nil)
			_, err := c.Metadata(t.Context())
			require.Error(t, err)
			require.Equal(t, test.metadata, waits.Waits())
			_, err = c.Issue(t.Context(), []byte("request"), "", false)
			require.Error(t, err)
			require.Equal(t, test.issue, waits.Waits())
			for _, body := range s.bodies[len(test.metadata)+1:] {
				require.JSONEq(t, `{"csr":"cmVxdWVzdA=="}`, body, "a retry sends the whole body")
			}
		})
	}
}

func TestRetriesEndWithSuccess(t *testing.T) {
	s := serve(t, answer{status: 500}, answer{status: 410}, answer{status: 200, body: metadata})
	c, waits := s.client(t, nil)
	_, err := c.Metadata(t.Context())
	require.NoError(t, err)
	require.Equal(t, seconds(1, 10), waits.Waits())
}

// bodies are answers of a policy of the caller's, which gives them bodies of its own.
type bodies struct{ open atomic.Int32 }

func (b *bodies) Do(req *policy.Request) (*http.Response, error) {
	resp, err := req.Next()
	if err == nil {
		b.open.Add(1)
		resp.Body = &body{resp.Body, b}
	}
	return resp, err
}

type body struct {
	io.ReadCloser
	of *bodies
}

func (b *body) Close() error {
	b.of.open.Add(-1)
	return b.ReadCloser.Close()
}

// An answer that is not the last is closed: a policy of the caller's may have given it a body that holds something.
func TestAnswersAreClosedBeforeTheNextTry(t *testing.T) {
	s := serve(t, answer{status: 500}, answer{status: 410}, answer{status: 200, body: metadata})
	replaced := &bodies{}
	c, _ := s.client(t, func(o *imds.Options) { o.PerRetryPolicies = []policy.Policy{replaced} })
	_, err := c.Metadata(t.Context())
	require.NoError(t, err)
	require.Zero(t, replaced.open.Load())
}

// The limit is on the first answer only: an IMDS that is there may take its time to recover.
func TestFirstAnswerIsEnough(t *testing.T) {
	s := serve(t, answer{status: 500}, answer{status: 500}, answer{status: 500}, answer{status: 200, body: metadata})
	c, fake := s.client(t, nil)
	_, err := c.Metadata(t.Context())
	require.NoError(t, err)
	require.Equal(t, seconds(1, 2, 4), fake.Waits(), "longer than the limit")
}

func TestCancelled(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	c, err := imds.New(imds.Options{Endpoint: "http://" + silent.Addr().String()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var unavailable *imds.UnavailableError
	_, err = c.Metadata(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorAs(t, err, &unavailable)
	_, err = c.Issue(ctx, nil, "", false)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	s := serve(t, answer{status: 500})
	ctx, cancel = context.WithCancel(t.Context())
	c, err = imds.New(imds.Options{Endpoint: s.URL})
	require.NoError(t, err)
	context.AfterFunc(t.Context(), cancel)
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = c.Metadata(ctx) // in its first wait
	require.ErrorIs(t, err, context.Canceled)
}

func TestRedirectsAreRefused(t *testing.T) {
	followed := false
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer target.Close()
	s := serve(t, answer{status: 307, header: http.Header{"Location": {target.URL}}})
	for name, transport := range map[string]policy.Transporter{"default": nil, "http.Client": http.DefaultClient} {
		c, waits := s.client(t, func(o *imds.Options) { o.Transport = transport })
		_, err := c.Issue(t.Context(), []byte("request"), "", false)
		require.ErrorContains(t, err, "redirect", name)
		require.False(t, followed, name)
		require.Empty(t, waits.Waits())
	}
	// A transporter of the caller's own may follow redirects: the answer is refused all the same.
	c, _ := s.client(t, func(o *imds.Options) { o.Transport = follower{} })
	_, err := c.Issue(t.Context(), []byte("request"), "", false)
	require.ErrorContains(t, err, "redirect")
}

type follower struct{}

func (follower) Do(req *http.Request) (*http.Response, error) { return http.DefaultClient.Do(req) }

func TestOversized(t *testing.T) {
	s := serve(t, answer{status: 200, body: fmt.Sprintf(`{"padding":%q}`, strings.Repeat("x", 1<<20))})
	c, waits := s.client(t, nil)
	_, err := c.Metadata(t.Context())
	require.ErrorContains(t, err, "1 MiB")
	require.Empty(t, waits.Waits())
	fits := serve(
		t,
		answer{
			status: 200,
			body:   strings.Replace(metadata, "{", `{"padding":"`+strings.Repeat("x", 1<<20-len(metadata)-13)+`",`, 1),
		},
	)
	c, _ = fits.client(t, nil)
	_, err = c.Metadata(t.Context())
	require.NoError(t, err, "1 MiB is allowed")
}

func TestEndpoint(t *testing.T) {
	for _, bad := range []string{"ftp://host", "host", "http://", "http://user@host", "http://host?q", "http://host#f", "http://[", "http://host?q=1"} {
		_, err := imds.New(imds.Options{Endpoint: bad})
		require.Error(t, err, bad)
	}
	c, err := imds.New(imds.Options{})
	require.NoError(t, err)
	require.Equal(t, "http://169.254.169.254", c.Endpoint())
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:2579/")
	c, err = imds.New(imds.Options{})
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:2579", c.Endpoint())
}

// Every field is needed, and the error names the one that is missing.
func TestMetadataFields(t *testing.T) {
	for _, field := range []string{"clientId", "tenantId", "cuId", "attestationEndpoint"} {
		var body map[string]any
		require.NoError(t, json.Unmarshal([]byte(metadata), &body))
		delete(body, field)
		out, err := json.Marshal(body)
		require.NoError(t, err)
		c, _ := serve(t, answer{status: 200, body: string(out)}).client(t, nil)
		_, err = c.Metadata(t.Context())
		require.ErrorContains(t, err, field)
	}
}

// patience notes how long each request may take.
type patience struct {
	clock  *clock.Fake
	limits []time.Duration
}

func (p *patience) Do(req *policy.Request) (*http.Response, error) {
	limit, _ := p.clock.Next()
	p.limits = append(p.limits, limit)
	return req.Next()
}

// A certificate may take IMDS longer and longer, from one try to the next: it may have to ask a service of its own. The
// metadata is at hand.
func TestPatience(t *testing.T) {
	s := serve(t, answer{status: 200, body: metadata}, answer{status: 500})
	granted := &patience{}
	c, fake := s.client(t, func(o *imds.Options) { o.PerRetryPolicies = []policy.Policy{granted} })
	granted.clock = fake
	_, err := c.Metadata(t.Context())
	require.NoError(t, err)
	granted.limits = nil
	_, err = c.Issue(t.Context(), nil, "", false)
	require.Error(t, err)
	require.Equal(t, seconds(15, 30, 60, 60), granted.limits)
	granted.limits = nil
	_, err = c.Metadata(t.Context())
	require.Error(t, err)
	require.Equal(t, seconds(10, 10, 10, 10), granted.limits)
}

// CloseIdle ends the connections of our own transport: the next request opens another.
func TestCloseIdle(t *testing.T) {
	s := serve(t, answer{status: 200, body: metadata})
	c, _ := s.client(t, nil)
	for _, ended := range []bool{false, true, false} {
		if ended {
			c.CloseIdle()
		}
		_, err := c.Metadata(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, s.requests[1].RemoteAddr, s.requests[2].RemoteAddr)
	require.NotEqual(t, s.requests[0].RemoteAddr, s.requests[1].RemoteAddr)
}
