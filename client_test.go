package azmtls_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

func TestClient(t *testing.T) {
	for _, tokenType := range []azmtls.TokenType{azmtls.TokenTypeAuto, azmtls.TokenTypeMtlsPoP, azmtls.TokenTypeBearer} {
		t.Run(tokenType.String(), func(t *testing.T) {
			f := newFixture(
				t,
				imdstest.Options{ResourceHandler: echo},
				func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = tokenType },
			)
			resp, err := f.cred.Client(storage).Post(f.server.ResourceURL(), "text/plain", strings.NewReader("payload"))
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			want := "mtls_pop payload"
			if tokenType == azmtls.TokenTypeBearer {
				want = "Bearer payload"
			}
			require.Equal(t, want, string(body))
			f.noRejections()
		})
	}
}

func TestClientHeals(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	client := f.cred.Client(storage)
	_, err := f.token(vault)
	require.NoError(t, err)
	f.resourceRefuses()
	resp, err := client.Post(f.server.ResourceURL(), "text/plain", bytes.NewReader([]byte("payload")))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "mtls_pop payload", string(body))
	require.Equal(t, 2, f.server.Counts().Issued)

	f.clock.Advance(2 * time.Second) // the next unit has come
	// A body that cannot be read again: the certificate is replaced, the request is not repeated, and the error says
	// so.
	require.NoError(t, f.cred.Close())
	f.resourceRefuses()
	reader := &closeRecorder{Reader: strings.NewReader("payload")}
	_, err = client.Post(f.server.ResourceURL(), "text/plain", reader)
	require.ErrorContains(t, err, "cannot be read again")
	require.True(t, reader.closed.Load())
	resp, err = client.Get(f.server.ResourceURL())
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

type closeRecorder struct {
	io.Reader
	closed atomic.Bool
}

func (c *closeRecorder) Close() error { c.closed.Store(true); return nil }

func TestClientRefuses(t *testing.T) {
	var target atomic.Value
	target.Store("")
	f := newFixture(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/end" {
			fmt.Fprint(w, "arrived")
			return
		}
		http.Redirect(w, r, target.Load().(string), http.StatusTemporaryRedirect)
	})}, nil)
	client := f.cred.Client(storage)
	body := &closeRecorder{Reader: strings.NewReader("payload")}
	_, err := client.Post("http://127.0.0.1:1/", "text/plain", body)
	require.ErrorContains(t, err, "https only")
	require.True(t, body.closed.Load(), "a RoundTripper closes the body, also of a request it refuses")
	require.Zero(t, f.server.Counts().Token)

	for to, refused := range map[string]bool{"https://elsewhere.invalid/": true, "http://127.0.0.1:1/": true, "/end": false} {
		target.Store(to)
		resp, err := client.Get(f.server.ResourceURL())
		if refused {
			require.ErrorContains(t, err, "refused", to)
		} else {
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
		}
	}
	target.Store("/loop")
	_, err = client.Get(f.server.ResourceURL())
	require.ErrorContains(t, err, "10 redirects")
}

// Without a token nothing is sent, and the body is closed all the same.
func TestClientWithoutToken(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_scope", AADSTS: "AADSTS70011"}},
	)
	body := &closeRecorder{Reader: strings.NewReader("payload")}
	_, err := f.cred.Client(storage).Post(f.server.ResourceURL(), "text/plain", body)
	var failure *azmtls.AuthenticationError
	require.ErrorAs(t, err, &failure)
	require.True(t, body.closed.Load())
	require.Zero(t, f.server.Counts().Resource)
}

// onceOnly is a body that cannot be read again.
func onceOnly(text string) io.Reader { return struct{ io.Reader }{strings.NewReader(text)} }

// A claims challenge that meets a body which cannot be read again is the caller's, whole: no certificate was replaced,
// and no text says so. The token that it demands is got all the same, for the request that the caller makes then.
// Neither is the challenge lost where that token cannot be had.
func TestChallengeOfRequestThatCannotBeRepeated(t *testing.T) {
	for name, test := range map[string]struct {
		answer imdstest.Respond
		entra  *imdstest.Fault
		tokens int
	}{
		"answered": {challenge, nil, 2},
		"Entra refuses": {challenge, &imdstest.Fault{
			Do: imdstest.EntraError{OAuth: "interaction_required", AADSTS: "AADSTS50076"},
		}, 1},
		"senseless": {imdstest.Respond{Status: 401, Body: challenge.Body, Header: http.Header{
			"Www-Authenticate": {`Bearer error="insufficient_claims", claims="%%%"`},
		}}, nil, 1},
		"of another kind": {imdstest.Respond{Status: 401, Body: challenge.Body, Header: http.Header{
			"Www-Authenticate": {`Bearer error="invalid_token"`},
		}}, nil, 1},
	} {
		for _, tokenType := range []azmtls.TokenType{azmtls.TokenTypeAuto, azmtls.TokenTypeBearer} {
			t.Run(tokenType.String()+"/"+name, func(t *testing.T) {
				f := newFixture(t, imdstest.Options{ResourceHandler: echo}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
					o.TokenType = tokenType
				})
				told := hinted(t)
				client := f.cred.Client(storage)
				resp, err := client.Get(f.server.ResourceURL()) // so that it has a token
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				test.answer.Header.Set("X-Ms-Request-Id", "4711")
				f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Times: 1, Do: test.answer})
				remove := func() {}
				if test.entra != nil {
					test.entra.Endpoint = imdstest.Token
					remove = f.server.Inject(*test.entra)
				}
				body := &closeRecorder{Reader: onceOnly("payload")}
				resp, err = client.Post(f.server.ResourceURL(), "text/plain", body)
				require.NoError(t, err)
				require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				require.Equal(t, test.answer.Header["Www-Authenticate"], resp.Header["Www-Authenticate"])
				require.Equal(t, "4711", resp.Header.Get("X-Ms-Request-Id"))
				whole, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, challenge.Body, string(whole))
				require.Eventually(t, body.closed.Load, time.Second, time.Millisecond)
				require.Equal(t, 2, f.server.Counts().Resource, "it was sent once")
				require.Equal(t, test.tokens, f.server.Counts().TokenIssued)

				remove()
				resp, err = client.Post(f.server.ResourceURL(), "text/plain", onceOnly("again"))
				require.NoError(t, err)
				whole, err = io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Contains(t, string(whole), " again")
				require.Equal(t, test.tokens, f.server.Counts().TokenIssued, "the token is there already")
				require.Empty(t, told())
				require.Zero(t, f.store.evicted())
				f.noRejections()
			})
		}
	}
}

// Where the body can be read again the challenge is answered, and the error is Entra's where it cannot be.
func TestChallengeOfRequestThatCanBeRepeated(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	client := f.cred.Client(storage)
	post := func() (string, error) {
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Times: 1, Do: challenge})
		resp, err := client.Post(f.server.ResourceURL(), "text/plain", strings.NewReader("payload"))
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(resp.Body)
		return string(body), errors.Join(err, resp.Body.Close())
	}
	body, err := post()
	require.NoError(t, err)
	require.Equal(t, "mtls_pop payload", body)
	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "interaction_required", AADSTS: "AADSTS50076"},
	})
	_, err = post()
	require.ErrorContains(t, err, "AADSTS50076")
}

// trailing is a body after which the caller knows the trailers: he sets them at its end, as net/http has it.
type trailing struct {
	io.Reader
	trailer http.Header
}

func (b trailing) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.trailer.Set("X-Checksum", "4711")
	}
	return n, err
}

// Trailers are set while the body is read, long after the request was made: they arrive, whatever token it has, after a
// recovery too.
func TestClientSendsTrailers(t *testing.T) {
	for name, tokenType := range map[string]azmtls.TokenType{
		"bound": azmtls.TokenTypeAuto, "bearer": azmtls.TokenTypeBearer, "after recovery": azmtls.TokenTypeMtlsPoP,
	} {
		t.Run(name, func(t *testing.T) {
			var arrived http.Header
			f := newFixture(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				arrived = r.Trailer
			})}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = tokenType })
			if name == "after recovery" {
				f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: nginxRefuses, Times: 1})
			}
			trailer := http.Header{"X-Checksum": nil}
			body := func() io.Reader { return trailing{strings.NewReader("payload"), trailer} }
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.server.ResourceURL(), body())
			require.NoError(t, err)
			req.Trailer = trailer
			req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(body()), nil }
			resp, err := f.cred.Client(storage).Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.Equal(t, http.Header{"X-Checksum": {"4711"}}, arrived)
			f.noRejections()
		})
	}
}
