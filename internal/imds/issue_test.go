package imds_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/stretchr/testify/require"
)

// certificate returns the DER of a self-signed one.
func certificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	subject := pkix.Name{CommonName: "11111111-2222-3333-4444-555555555555"}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return der
}

// credential is the body of a good answer, with what edit makes of it.
func credential(t *testing.T, der []byte, edit func(map[string]any)) string {
	t.Helper()
	members := map[string]any{
		"client_id":                    "11111111-2222-3333-4444-555555555555",
		"tenant_id":                    "99999999-8888-7777-6666-555555555555",
		"certificate":                  base64.StdEncoding.EncodeToString(der),
		"identity_type":                "SystemAssigned",
		"mtls_authentication_endpoint": "https://eus.mtlsauth.example/",
	}
	if edit != nil {
		edit(members)
	}
	body, err := json.Marshal(members)
	require.NoError(t, err)
	return string(body)
}

func TestIssue(t *testing.T) {
	der := certificate(t)
	s := serve(t, answer{
		status: 200, body: credential(t, der, nil), header: http.Header{"Date": {"Tue, 01 Sep 2026 12:00:00 GMT"}},
	})
	c, _ := s.client(t, nil)
	issued, err := c.Issue(t.Context(), []byte("request"), "", false)
	require.NoError(t, err)
	require.Equal(t, der, issued.Certificate.Raw)
	issued.Certificate = nil
	require.Equal(t, imds.Issued{
		ClientID: "11111111-2222-3333-4444-555555555555", TenantID: "99999999-8888-7777-6666-555555555555",
		IdentityType: "SystemAssigned", Endpoint: "https://eus.mtlsauth.example/99999999-8888-7777-6666-555555555555",
		Date: time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC),
	}, issued)
	require.NotContains(t, s.requests[0].URL.Query(), "bypass_cache")
}

// The Date is IMDS's own or none: a time of ours in its place would judge certificates by a clock that may be wrong.
func TestIssueWithoutADate(t *testing.T) {
	for name, date := range map[string][]string{
		"none": nil, "no date": {"today"}, "of another format": {"2026-09-01T12:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			body := credential(t, certificate(t), nil)
			c, _ := serve(t, answer{status: 200, body: body, header: http.Header{"Date": date}}).client(t, nil)
			issued, err := c.Issue(t.Context(), []byte("request"), "", false)
			require.NoError(t, err)
			require.True(t, issued.Date.IsZero(), issued.Date)
		})
	}
}

// IMDS is asked for a certificate that it has not issued before. One that does not know of that says 400 and is asked
// without: the same request otherwise.
func TestBypassCache(t *testing.T) {
	for name, test := range map[string]struct {
		answers  []answer
		bypasses []bool // of each request
		definite bool
		want     int // status of the error, 0 for success
	}{
		"known":              {[]answer{{status: 200}}, []bool{true}, false, 0},
		"not known":          {[]answer{{status: 400}, {status: 200}}, []bool{true, false}, false, 0},
		"known, later on":    {[]answer{{status: 500}, {status: 200}}, []bool{true, true}, false, 0},
		"refused either way": {[]answer{{status: 400}, {status: 400}}, []bool{true, false}, true, 400},
		"ill without":        {[]answer{{status: 400}, {status: 429}}, []bool{4: false, 0: true}, false, 429},
		"forbidden":          {[]answer{{status: 403}}, []bool{true}, true, 403},
		"not there":          {[]answer{{status: 404}}, []bool{true, true, true, true}, true, 404},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range test.answers {
				if test.answers[i].status == 200 {
					test.answers[i].body = credential(t, certificate(t), nil)
				}
			}
			s := serve(t, test.answers...)
			c, _ := s.client(t, func(o *imds.Options) { o.ID = imds.ID{Param: "client_id", Value: "id"} })
			_, err := c.Issue(t.Context(), []byte("request"), "jwt", true)
			require.Equal(t, test.definite, failure.IsDefinite(err))
			if test.want == 0 {
				require.NoError(t, err)
			} else {
				var refused *imds.Error
				require.ErrorAs(t, err, &refused)
				require.Equal(t, test.want, refused.StatusCode)
			}
			require.Len(t, s.requests, len(test.bypasses))
			for i, bypass := range test.bypasses {
				query := s.requests[i].URL.Query()
				require.Equal(t, bypass, query.Get("bypass_cache") == "true", "request %d", i)
				require.Equal(t, bypass, query.Has("bypass_cache"), "request %d", i)
				require.Equal(t, "id", query.Get("client_id"))
				require.Equal(t, "2.0", query.Get("cred-api-version"))
				require.JSONEq(t, `{"csr":"cmVxdWVzdA==","attestation_token":"jwt"}`, s.bodies[i])
			}
		})
	}
	s := serve(t, answer{status: 400})
	c, _ := s.client(t, nil)
	_, err := c.Issue(t.Context(), []byte("request"), "", false)
	require.Error(t, err)
	require.Len(t, s.requests, 1, "there is nothing to leave out")
}

// transporter answers in the place of the network.
type transporter func(*http.Request) (*http.Response, error)

func (f transporter) Do(req *http.Request) (*http.Response, error) { return f(req) }

// A definite failure counts in the budget of mints, and while that is spent nobody asks IMDS again. So it is one that
// asking again would repeat, and no other: what passes by itself must not lock anyone out.
func TestDefiniteFailuresOfStatus(t *testing.T) {
	for status, want := range map[int]bool{
		400: true, 403: true, 404: true, 405: true, 501: true,
		401: false, 408: false, 409: false, 410: false, 418: false, 429: false,
		500: false, 502: false, 503: false, 504: false,
		301: true, 302: true, 307: true, 308: true, // refused redirects
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := serve(t, answer{status: status, body: `{"error":"code","error_description":"why"}`})
			c, _ := s.client(t, nil)
			_, err := c.Issue(t.Context(), []byte("request"), "", false)
			require.Error(t, err)
			require.Equal(t, want, failure.IsDefinite(err), err.Error())
			if status/100 == 3 {
				return
			}
			var refused *imds.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, "code", refused.Code)
			require.ErrorContains(t, err, fmt.Sprintf("IMDS answered %d %s code: why", status, http.StatusText(status)))
			var response *azcore.ResponseError
			require.ErrorAs(t, err, &response)
			require.Equal(t, status, response.StatusCode)
			require.Equal(t, "code", response.ErrorCode)

			// That there is no metadata says nothing of certificates.
			_, err = c.Metadata(t.Context())
			require.Error(t, err)
			require.False(t, failure.IsDefinite(err))
		})
	}
}

// A 404 is retried first: an IMDS that is being updated says so.
func TestNotFoundIsDefiniteAfterItsRetries(t *testing.T) {
	s := serve(t, answer{status: 404})
	c, waits := s.client(t, nil)
	_, err := c.Issue(t.Context(), []byte("request"), "", false)
	require.True(t, failure.IsDefinite(err))
	require.Equal(t, seconds(1, 2, 4), waits.Waits())

	s = serve(t, answer{status: 404}, answer{status: 200, body: credential(t, certificate(t), nil)})
	c, _ = s.client(t, nil)
	_, err = c.Issue(t.Context(), []byte("request"), "", false)
	require.NoError(t, err)
}

// An answer of no use is the same the next time.
func TestAnswersOfNoUseAreDefinite(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON":        "<html></html>",
		"empty":           "",
		"array":           "[]",
		"cut in the JSON": `{"client_id":"11111111-2222`,
		"wrong type":      `{"client_id":5}`,
		"too large":       `{"padding":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer{status: 200, body: body})
			c, waits := s.client(t, nil)
			_, err := c.Issue(t.Context(), []byte("request"), "", false)
			require.Error(t, err)
			require.True(t, failure.IsDefinite(err), err.Error())
			require.Empty(t, waits.Waits())
		})
	}
}

// Every member is needed, and must be what it says: the certificate is presented to the endpoint, and the ids go into
// its path.
func TestUnusableCertificatesAreDefinite(t *testing.T) {
	der := certificate(t)
	longer := base64.StdEncoding.EncodeToString(append(der[:len(der):len(der)], 0))
	type change struct {
		member string
		value  any // nil: it is missing
		says   string
	}
	changes := map[string]change{
		"client id no GUID":    {"client_id", "me", "client_id is not a GUID"},
		"client id and more":   {"client_id", "11111111-2222-3333-4444-555555555555/x", "client_id is not a GUID"},
		"tenant is a path":     {"tenant_id", "../common", "tenant_id is not a tenant id"},
		"tenant with a slash":  {"tenant_id", "tenant/x", "tenant_id is not a tenant id"},
		"tenant with a query":  {"tenant_id", "tenant?x", "tenant_id is not a tenant id"},
		"not base64":           {"certificate", "!", "not base64"},
		"PEM":                  {"certificate", "-----BEGIN CERTIFICATE-----", "not base64"},
		"not DER":              {"certificate", "AAAA", "not the DER"},
		"DER and more":         {"certificate", longer, "not the DER"},
		"endpoint no URL":      {"mtls_authentication_endpoint", "https://[::1", "is not a URL"},
		"endpoint http":        {"mtls_authentication_endpoint", "http://host", "is not https"},
		"endpoint of no host":  {"mtls_authentication_endpoint", "https:///path", "names no host"},
		"endpoint userinfo":    {"mtls_authentication_endpoint", "https://host@evil", "userinfo"},
		"endpoint query":       {"mtls_authentication_endpoint", "https://host?a=b", "query"},
		"endpoint empty query": {"mtls_authentication_endpoint", "https://host?", "query"},
		"endpoint fragment":    {"mtls_authentication_endpoint", "https://host#f", "fragment"},
		"endpoint empty one":   {"mtls_authentication_endpoint", "https://host#", "fragment"},
	}
	for _, member := range []string{
		"client_id", "tenant_id", "certificate", "identity_type", "mtls_authentication_endpoint",
	} {
		changes["no "+member] = change{member, nil, member + " is missing"}
		changes["empty "+member] = change{member, "", member + " is missing"}
	}
	for name, test := range changes {
		t.Run(name, func(t *testing.T) {
			body := credential(t, der, func(members map[string]any) {
				if members[test.member] = test.value; test.value == nil {
					delete(members, test.member)
				}
			})
			c, _ := serve(t, answer{status: 200, body: body}).client(t, nil)
			issued, err := c.Issue(t.Context(), []byte("request"), "", false)
			require.ErrorContains(t, err, test.says)
			require.True(t, failure.IsDefinite(err))
			require.Zero(t, issued)
		})
	}
}

// silence is what a network that does not answer in time makes of a request.
type silence struct{}

func (silence) Error() string   { return "i/o timeout" }
func (silence) Timeout() bool   { return true }
func (silence) Temporary() bool { return true }

// What the network did, and what the caller's context did, says nothing of what IMDS would answer.
func TestFailuresOfTheNetworkAreNotDefinite(t *testing.T) {
	for name, do := range map[string]transporter{
		"reset":   func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset by peer") },
		"EOF":     func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"timeout": func(*http.Request) (*http.Response, error) { return nil, silence{} },
		"refused": func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		},
		"its own deadline": func(*http.Request) (*http.Response, error) { return nil, os.ErrDeadlineExceeded },
	} {
		t.Run(name, func(t *testing.T) {
			c, waits := serve(t, answer{status: 200}).client(t, func(o *imds.Options) { o.Transport = do })
			_, err := c.Issue(t.Context(), []byte("request"), "", false)
			require.Error(t, err)
			require.False(t, failure.IsDefinite(err), err.Error())
			require.Equal(t, seconds(1, 2, 4), waits.Waits(), "it was worth repeating")
		})
	}
}

// An answer whose body ends before its length is a failure of the network too, though what has come is malformed.
func TestAnswerCutShortIsNotDefinite(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"client_id":`)
	}))
	defer s.Close()
	c, _ := (&service{Server: s}).client(t, nil)
	_, err := c.Issue(t.Context(), []byte("request"), "", false)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.False(t, failure.IsDefinite(err))
}

// The caller's end may come while IMDS answers: what it answered then is not looked at.
func TestEndedContextsAreNotDefinite(t *testing.T) {
	for name, test := range map[string]struct {
		deadline time.Duration
		cancel   bool // before the request; otherwise at its answer
		want     error
	}{
		"cancelled before":        {time.Hour, true, context.Canceled},
		"cancelled at the answer": {time.Hour, false, context.Canceled},
		"deadline":                {-time.Second, false, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			for _, bypass := range []bool{false, true} {
				ctx, cancel := context.WithTimeout(t.Context(), test.deadline)
				defer cancel()
				if test.cancel {
					cancel()
				}
				c, _ := serve(t, answer{status: 200}).client(t, func(o *imds.Options) {
					o.Transport = transporter(func(req *http.Request) (*http.Response, error) {
						cancel()
						return &http.Response{StatusCode: 400, Body: http.NoBody, Request: req}, nil
					})
				})
				_, err := c.Issue(ctx, []byte("request"), "", bypass)
				require.ErrorIs(t, err, test.want)
				require.False(t, failure.IsDefinite(err), err.Error())
			}
		})
	}
}

// A redirect is final, and says where it came from and not the identity that was asked for.
func TestRedirectNamesNoIdentity(t *testing.T) {
	s := serve(t, answer{status: 307, header: http.Header{"Location": {"https://elsewhere.example"}}})
	c, _ := s.client(t, func(o *imds.Options) { o.ID = imds.ID{Param: "client_id", Value: "the-identity"} })
	_, err := c.Issue(t.Context(), []byte("request"), "", true)
	require.ErrorContains(t, err, "(307)")
	require.NotContains(t, err.Error(), "the-identity")
	require.Len(t, s.requests, 1)
	var final interface{ NonRetriable() }
	require.ErrorAs(t, err, &final)
}

// That there is no IMDS here is final as well: a chain goes on at once.
func TestUnavailableIsFinal(t *testing.T) {
	cause := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	c, _ := serve(t, answer{status: 200}).client(t, func(o *imds.Options) {
		o.Transport = transporter(func(*http.Request) (*http.Response, error) { return nil, cause })
	})
	_, err := c.Metadata(t.Context())
	var unavailable *imds.UnavailableError
	require.ErrorAs(t, err, &unavailable)
	require.ErrorIs(t, err, cause)
	var final interface{ NonRetriable() }
	require.ErrorAs(t, err, &final)
	require.ErrorContains(t, err, "connection refused")
}

// The ids of the metadata go into the certificate request, and the tenant into a URL.
func TestMetadataValues(t *testing.T) {
	for name, test := range map[string]struct{ from, to, says string }{
		"client id": {"11111111-2222-3333-4444-555555555555", "me", "clientId is not a GUID"},
		"tenant id": {"99999999-8888-7777-6666-555555555555", "../x", "tenantId is not a tenant id"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := serve(t, answer{status: 200, body: strings.Replace(metadata, test.from, test.to, 1)}).client(t, nil)
			m, err := c.Metadata(t.Context())
			require.ErrorContains(t, err, test.says)
			require.Zero(t, m)
		})
	}
	c, _ := serve(t, answer{status: 200, body: "not JSON"}).client(t, nil)
	_, err := c.Metadata(t.Context())
	require.ErrorContains(t, err, "malformed")
}
