package imds_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/stretchr/testify/require"
)

// Whatever answers in the place of IMDS is not IMDS, and a chain goes on at once: no try is repeated, no redirect
// followed.
func TestStrangers(t *testing.T) {
	server := func(value ...string) http.Header { return http.Header{"Server": value} }
	for name, a := range map[string]answer{
		"container proxy":  {status: 403, header: server(), body: "connecting to 169.254.169.254:80: dial tcp: unreachable network"},
		"EC2":              {status: 401, header: server("EC2ws")},
		"EC2 without":      {status: 404, header: server("EC2ws")},
		"portal":           {status: 302, header: http.Header{"Server": {"portal"}, "Location": {"https://portal.example/login"}}},
		"portal, same URL": {status: 307, header: http.Header{"Server": nil, "Location": {"/metadata/identity/getplatformmetadata"}}},
		"gateway":          {status: 503, header: http.Header{"Server": {"squid"}, "Retry-After": {"120"}}},
		"busy":             {status: 429, header: server("nginx")},
		"gone":             {status: 410, header: server()},
		"well":             {status: 200, header: server("nginx"), body: metadata},
		"malformed":        {status: 200, header: server("nginx"), body: "<html>"},
		"bad request":      {status: 400, header: server("Google Frontend")},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, a)
			for kind, transport := range map[string]*http.Client{"default": nil, "client": {}} {
				c, fake := s.client(t, func(o *imds.Options) {
					if transport != nil {
						o.Transport = transport
					}
				})
				before := len(s.requests)
				_, err := c.Metadata(t.Context())
				var unavailable *imds.UnavailableError
				require.ErrorAs(t, err, &unavailable, kind)
				require.Equal(t, imds.NoIMDS, unavailable.Absence)
				require.ErrorContains(t, err, "is not IMDS")
				require.ErrorContains(t, err, strings.TrimPrefix(s.URL, "http://"))
				require.ErrorContains(t, err, http.StatusText(a.status))
				require.Empty(t, fake.Waits())
				require.Len(t, s.requests, before+1)
			}
		})
	}
}

// What IMDS itself answers, and that nothing does, are told apart.
func TestAbsence(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	noIdentity := answer{status: 400, body: `{"error":"invalid_request","error_description":"Identity not found"}`}
	for name, test := range map[string]struct {
		url     string
		absence imds.Absence
		says    string
	}{
		"404":         {serve(t, answer{status: 404}).URL, imds.NoVersion2, "no version 2"},
		"no identity": {serve(t, noIdentity).URL, imds.NoIdentity, "Identity not found"},
		"refused":     {"http://127.0.0.1:1", imds.NoIMDS, "nothing listens"}, // below those that a test may be given
		"silent":      {"http://" + silent.Addr().String(), imds.NoIMDS, "nothing answered within 4s"},
	} {
		t.Run(name, func(t *testing.T) {
			c, fake := (&service{Server: &httptest.Server{URL: test.url}}).client(t, nil)
			if name == "silent" {
				go func() {
					for fake.Waiting() == 0 { // the limit is set when the request goes out
						runtime.Gosched()
					}
					fake.Advance(4 * time.Second)
				}()
			}
			_, err := c.Metadata(t.Context())
			var unavailable *imds.UnavailableError
			require.ErrorAs(t, err, &unavailable)
			require.Equal(t, test.absence, unavailable.Absence)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "IMDS")
			require.ErrorContains(t, err, strings.TrimPrefix(test.url, "http://"))
			require.Empty(t, fake.Waits(), "a chain waits for the answer")
		})
	}
	t.Run("an identity that was named and is not there", func(t *testing.T) {
		c, _ := serve(t, noIdentity).client(t, func(o *imds.Options) { o.ID = imds.ID{Param: "client_id", Value: "x"} })
		_, err := c.Metadata(t.Context())
		var unavailable *imds.UnavailableError
		require.NotErrorAs(t, err, &unavailable, "the configuration is wrong")
		require.ErrorContains(t, err, "Identity not found")
	})
}

// A stranger is not IMDS's first answer: the next try is not given longer.
func TestStrangerIsNoFirstAnswer(t *testing.T) {
	s := serve(t, answer{status: 200, header: http.Header{"Server": {"nginx"}}})
	c, fake := s.client(t, nil)
	_, err := c.Metadata(t.Context())
	require.Error(t, err)
	s.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	go func() {
		for fake.Waiting() == 0 {
			runtime.Gosched()
		}
		fake.Advance(4 * time.Second)
	}()
	_, err = c.Metadata(t.Context())
	require.ErrorContains(t, err, "nothing answered within 4s")
}

// A proxy that the caller's client would use is not asked: what IMDS says is for this machine.
func TestNoProxy(t *testing.T) {
	proxied := false
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied = true }))
	defer proxy.Close()
	to, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	given := &http.Transport{Proxy: http.ProxyURL(to)}
	c, _ := serve(t, answer{status: 200, body: metadata}).client(t, func(o *imds.Options) {
		o.Transport = &http.Client{Transport: given}
	})
	_, err = c.Metadata(t.Context())
	require.NoError(t, err)
	require.False(t, proxied)
	require.NotNil(t, given.Proxy, "the caller's transport stays as it is")
	c.CloseIdle()
}

// The JSON may begin with a byte order mark, and a bare host stands for https.
func TestForms(t *testing.T) {
	body := strings.Replace(metadata, "https://sharedeus", "sharedeus", 1)
	require.NotEqual(t, metadata, body)
	c, _ := serve(t, answer{status: 200, body: "\ufeff" + body}).client(t, nil)
	m, err := c.Metadata(t.Context())
	require.NoError(t, err)
	require.Equal(t, "https://sharedeus.eus.attest.azure.net", m.AttestationEndpoint)

	for _, bad := range []string{"http://sharedeus", "https://user@sharedeus", "https://:", "https://"} {
		c, _ := serve(t, answer{status: 200, body: strings.Replace(metadata, "https://sharedeus", bad, 1)}).client(t, nil)
		_, err := c.Metadata(t.Context())
		if strings.HasSuffix(bad, "//") { // https://.eus.attest.azure.net
			continue
		}
		require.ErrorContains(t, err, "attestationEndpoint", bad)
	}
}

// One acquisition is one id, and another has another.
func TestCorrelation(t *testing.T) {
	s := serve(t, answer{status: 200, body: metadata}, answer{status: 403}, answer{status: 200, body: metadata})
	c, _ := s.client(t, nil)
	ctx := correlation.With(t.Context(), "4d1a4e38-0b3e-4b0e-8e0a-111111111111")
	_, err := c.Metadata(ctx)
	require.NoError(t, err)
	_, err = c.Issue(ctx, []byte("request"), "", false)
	require.Error(t, err)
	_, err = c.Metadata(context.Background())
	require.NoError(t, err)
	id := func(i int) string { return s.requests[i].Header.Get("x-ms-client-request-id") }
	require.Equal(t, "4d1a4e38-0b3e-4b0e-8e0a-111111111111", id(0))
	require.Equal(t, id(0), id(1))
	require.NotEqual(t, id(0), id(2))
}

// Whatever form IMDS chooses for its words, they are in the error.
func TestWordsOfIMDS(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"bad_request","error_description":"no such key"}`:   "400 Bad Request bad_request: no such key",
		`{"error":"bad_request","message":"no such key"}`:             "400 Bad Request bad_request: no such key",
		`{"error":{"code":"KeyNotAttested","message":"no such key"}}`: "400 Bad Request KeyNotAttested: no such key",
		"no such key\r\nstack trace":                                  "400 Bad Request: no such key",
		"\x1b[31mno such key" + strings.Repeat("!", 1000):             "400 Bad Request: [31mno such key" + strings.Repeat("!", 485) + "…",
		"<html>": "400 Bad Request",
	} {
		s := serve(t, answer{status: 400, body: body})
		c, _ := s.client(t, nil)
		_, err := c.Issue(t.Context(), []byte("request"), "", false)
		require.EqualError(t, err, "asking IMDS at "+s.URL+" for a certificate: IMDS answered "+want)
		require.True(t, imds.IsRefusal(err))
	}
}
