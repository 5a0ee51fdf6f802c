package imdstest_test

import (
	"encoding/base64"
	"net/http"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// The clock of a test is IMDS's.
func TestDateOfIMDS(t *testing.T) {
	s := newServer(t, imdstest.Options{Time: func() time.Time {
		return time.Date(2031, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	}})
	for _, req := range []*http.Request{request(t, s, imdstest.Metadata), request(t, s, imdstest.Issue), unknown(t, s)} {
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "Mon, 03 Feb 2031 03:05:06 GMT", resp.Header.Get("Date"))
	}
}

func unknown(t *testing.T, s *imdstest.Server) *http.Request {
	t.Helper()
	req := request(t, s, imdstest.Metadata)
	req.URL.Path = "/metadata/instance"
	return req
}

// issue asks for a certificate, with bypass_cache if a value for it is given, and returns it.
func issue(t *testing.T, s *imdstest.Server, bypass string) (int, any) {
	t.Helper()
	req := request(t, s, imdstest.Issue)
	if bypass != "" {
		req.URL.RawQuery += "&bypass_cache=" + bypass
	}
	status, body := do(t, req)
	return status, body["certificate"]
}

func TestReissueSame(t *testing.T) {
	s := newServer(t, imdstest.Options{ReissueSame: true})
	_, first := issue(t, s, "")
	_, again := issue(t, s, "")
	require.Equal(t, first, again)
	status, fresh := issue(t, s, "true")
	require.Equal(t, http.StatusOK, status)
	require.NotEqual(t, first, fresh)
	_, again = issue(t, s, "")
	require.Equal(t, fresh, again, "the latest one is kept")
	other := request(t, s, imdstest.Metadata)
	other.URL.RawQuery += "&bypass_cache=true"
	require.Empty(t, s.Rejections())
	require.Equal(t, imdstest.Counts{Issue: 4, IssueBypass: 1, Issued: 4}, s.Counts())
	status, _ = do(t, other)
	require.Equal(t, http.StatusBadRequest, status, "metadata has no cache")
	status, _ = issue(t, s, "1")
	require.Equal(t, http.StatusBadRequest, status)
	require.Len(t, s.Rejections(), 2)
	require.Contains(t, s.Rejections()[1].Reason, "bypass_cache")

	planted, err := s.IssueCertificate(testKey().Public(), client)
	require.NoError(t, err)
	require.NotEqual(t, fresh, base64.StdEncoding.EncodeToString(planted.Raw))
	_, again = issue(t, s, "")
	require.Equal(t, base64.StdEncoding.EncodeToString(planted.Raw), again, "as if issuecredential had issued it")

	s = newServer(t, imdstest.Options{})
	_, first = issue(t, s, "")
	_, second := issue(t, s, "")
	require.NotEqual(t, first, second)
}

func TestRefuseBypassCache(t *testing.T) {
	s := newServer(t, imdstest.Options{ReissueSame: true, RefuseBypassCache: true})
	status, _ := issue(t, s, "true")
	require.Equal(t, http.StatusBadRequest, status)
	status, _ = issue(t, s, "")
	require.Equal(t, http.StatusOK, status)
	require.Empty(t, s.Rejections(), "that IMDS does not know it is no mistake of the client")
	require.Equal(t, imdstest.Counts{Issue: 2, IssueBypass: 1, Issued: 1}, s.Counts())
}
