package imdstest_test

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// got is an answer, read as far as it goes.
type got struct {
	*http.Response
	body string
	err  error
}

// askIMDS sends a correct request to IMDS on a connection of its own.
func askIMDS(t *testing.T, s *imdstest.Server, endpoint imdstest.Endpoint) got {
	t.Helper()
	c := over(s, nil)
	resp, err := c.Do(request(t, s, endpoint))
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return got{resp, string(body), err}
}

// An answer that the test gives: whether the request is served first is what the stage says.
func TestAnswersOfTheTest(t *testing.T) {
	for stage, served := range map[imdstest.Stage]int{imdstest.AtRequest: 0, imdstest.AtAnswer: 1} {
		s := newServer(t, imdstest.Options{})
		leaf, err := s.IssueCertificate(testKey().Public(), client)
		require.NoError(t, err)
		once := func(e imdstest.Endpoint, a imdstest.Action) {
			s.Inject(imdstest.Fault{Endpoint: e, At: stage, Do: a, Times: 1})
		}
		once(imdstest.Issue, imdstest.Respond{
			Status: 429, RetryAfter: 2500 * time.Millisecond, Header: http.Header{"Server": nil, "X": {"y"}}, Body: "slow down",
		})
		answer := askIMDS(t, s, imdstest.Issue)
		require.NoError(t, answer.err)
		require.Equal(t, 429, answer.StatusCode)
		require.Equal(t, "3", answer.Header.Get("Retry-After"))
		require.Equal(t, "y", answer.Header.Get("X"))
		require.NotContains(t, answer.Header, "Server")
		require.Contains(t, answer.Header, "Date")
		require.Equal(t, "slow down", answer.body)
		require.Equal(t, served, s.Counts().Issued)

		for _, test := range []struct {
			action imdstest.EntraError
			status int
		}{
			{imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS1000901"}, 400},
			{imdstest.EntraError{OAuth: "invalid_client", AADSTS: "700027"}, 401},
			{imdstest.EntraError{OAuth: "temporarily_unavailable", AADSTS: "AADSTS90033", Status: 503}, 503},
		} {
			once(imdstest.Token, test.action)
			status, body, err := postForm(over(s, leaf), s, form("bearer"))
			require.NoError(t, err)
			require.Equal(t, test.status, status)
			require.Equal(t, test.action.OAuth, body["error"])
			code := strings.TrimPrefix(test.action.AADSTS, "AADSTS")
			require.Contains(t, body["error_description"], "AADSTS"+code+": ")
			require.Equal(t, code, fmt.Sprintf("%.0f", body["error_codes"].([]any)[0]))
		}
		require.Equal(t, 3*served, s.Counts().TokenIssued)

		once(imdstest.Metadata, imdstest.Malformed())
		require.NotContains(t, askIMDS(t, s, imdstest.Metadata).body, "}")
		once(imdstest.Metadata, imdstest.Oversized())
		require.Greater(t, len(askIMDS(t, s, imdstest.Metadata).body), 1<<20)
		require.Empty(t, s.Rejections())
	}
}

// Following a redirect is a mistake, at every endpoint.
func TestRedirect(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	leaf, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	for i, test := range []struct {
		endpoint imdstest.Endpoint
		url      string
	}{
		{imdstest.Token, s.TokenURL() + "/" + tenant + "/oauth2/v2.0/token"},
		{imdstest.Resource, s.ResourceURL()},
		{imdstest.Metadata, s.IMDSURL() + "/metadata/identity/getplatformmetadata?cred-api-version=2.0"},
	} {
		s.Inject(imdstest.Fault{Endpoint: test.endpoint, Do: imdstest.Redirect()})
		c := over(s, leaf)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, test.url, nil)
		require.NoError(t, err)
		req.Header.Set("Metadata", "true")
		resp, err := c.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode)
		require.Len(t, s.Rejections(), i)
		there, err := resp.Location()
		require.NoError(t, err)
		require.Equal(t, req.URL.Host, there.Host)
		resp, err = c.Get(there.String())
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Len(t, s.Rejections(), i+1)
	}
}

// A change of the answer leaves the rest of it as it was, and errors alone.
func TestChanges(t *testing.T) {
	s := newServer(t, imdstest.Options{})
	once := func(e imdstest.Endpoint, a imdstest.Action) {
		s.Inject(imdstest.Fault{Endpoint: e, At: imdstest.AtAnswer, Do: a, Times: 1})
	}
	for _, endpoint := range []imdstest.Endpoint{imdstest.Metadata, imdstest.Issue} {
		once(endpoint, imdstest.Edit(func(m map[string]any) { m["extra"] = len(m) > 1 }))
		status, body := do(t, request(t, s, endpoint))
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, true, body["extra"])
		require.Greater(t, len(body), 2)

		once(endpoint, imdstest.SetHeader{"server": {"nginx"}, "Date": nil})
		answer := askIMDS(t, s, endpoint)
		require.Equal(t, "nginx", answer.Header.Get("Server"))
		require.NotContains(t, answer.Header, "Date")
		require.Contains(t, answer.Header.Get("Content-Type"), "json")
		whole := answer.body

		once(endpoint, imdstest.Truncate{})
		answer = askIMDS(t, s, endpoint)
		require.ErrorIs(t, answer.err, io.ErrUnexpectedEOF)
		require.InDelta(t, len(whole), answer.ContentLength, 50)
		require.Len(t, answer.body, int(answer.ContentLength)/2)
	}
	once(imdstest.Issue, imdstest.ForeignKey{})
	_, body := do(t, request(t, s, imdstest.Issue))
	der, err := base64.StdEncoding.DecodeString(body["certificate"].(string))
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	require.Equal(t, client, leaf.Subject.CommonName)
	require.False(t, leaf.PublicKey.(*rsa.PublicKey).Equal(testKey().Public()))
	require.Empty(t, s.Rejections())

	once(imdstest.Metadata, imdstest.Edit(func(map[string]any) { panic("an error was edited") }))
	bad := request(t, s, imdstest.Metadata)
	bad.Header.Set("Metadata", "false")
	status, _ := do(t, bad)
	require.Equal(t, http.StatusBadRequest, status)
}

// The endings of plain HTTP.
func TestEndingsOfIMDS(t *testing.T) {
	for _, stage := range []imdstest.Stage{imdstest.AtRequest, imdstest.AtAnswer, imdstest.AtBody} {
		for name, action := range map[string]imdstest.Action{
			"reset": imdstest.Reset{}, "EOF": imdstest.EOF{}, "eof": imdstest.CloseNotify{}, "": imdstest.Delay(1),
		} {
			s := newServer(t, imdstest.Options{})
			s.Inject(imdstest.Fault{Endpoint: imdstest.Issue, At: stage, Do: action})
			answer := askIMDS(t, s, imdstest.Issue)
			if name == "" {
				require.NoError(t, answer.err)
			} else {
				require.ErrorContains(t, answer.err, strings.ReplaceAll(name, "eof", "EOF"))
			}
			require.Equal(t, stage != imdstest.AtRequest || name == "", s.Counts().Issued == 1)
			require.Equal(t, 1, s.Counts().Faults)
		}
	}
}

// A resource's answer is a stream, unless a fault awaits it; then too, all of it arrives.
func TestStreamsAndFaults(t *testing.T) {
	release := make(chan struct{}, 1)
	s := newServer(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "second")
	})})
	leaf, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	_, body, err := postForm(over(s, leaf), s, form("bearer"))
	require.NoError(t, err)
	get := func() *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ResourceURL(), nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+body["access_token"].(string))
		resp, err := over(s, leaf).Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	s.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtBody, Do: imdstest.Delay(1), Times: 1})
	s.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtBody, Do: imdstest.Reset{}, Thumbprint: "another"})
	release <- struct{}{}
	whole, err := io.ReadAll(get().Body)
	require.NoError(t, err)
	require.Equal(t, "first second", string(whole))
	resp := get()
	first := make([]byte, len("first "))
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err, "the handler waits, its first words have arrived")
	release <- struct{}{}
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "first second", string(first)+string(rest))
	require.Equal(t, 1, s.Counts().Faults)
}

// A resource that never asks sees no certificate, and believes no bound token.
func TestResourceThatNeverAsks(t *testing.T) {
	for auth, connections := range map[tls.ClientAuthType]int{
		tls.NoClientCert: 0, tls.RequestClientCert: 1, tls.VerifyClientCertIfGiven: 1, tls.RequireAndVerifyClientCert: 1,
	} {
		s := newServer(t, imdstest.Options{ResourceClientAuth: &auth})
		leaf, err := s.IssueCertificate(testKey().Public(), client)
		require.NoError(t, err)
		for tokenType, want := range map[string]int{"mtls_pop": 401 - 201*connections, "Bearer": 200} {
			_, body, err := postForm(over(s, leaf), s, form(strings.ToLower(tokenType)))
			require.NoError(t, err)
			require.Equal(t, want, call(t, over(s, leaf), s, tokenType+" "+body["access_token"].(string)), auth)
		}
		require.Equal(t, 2*connections, s.Counts().ResourceConnections)
		_, err = over(s, nil).Get(s.ResourceURL())
		require.Equal(t, auth == tls.RequireAndVerifyClientCert, err != nil)
	}
}
