package azmtls

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/eventlog"
)

// Client returns an http.Client for one resource, for programs without an SDK client. It sends every request with a
// token for the scope, by the rules of a bound client: see [ImdsV2MtlsCredential.BindClientOptions].
//
// The hosts say where the token, and the certificate, may go: host[:port], 443 without a port, in whatever case and
// with a trailing dot or not. A request to any other host is an error, before a token is asked for, and so is every
// request if one of the hosts is none. Without hosts it is the host that the caller's request names: pass them where
// that is not the program's own choice. A redirect is followed to where the token may go, and without hosts on the host
// of the request only; any other is an error. It never speaks plain http.
//
// A request whose connection or certificate failed is repeated at most once for each reason, and only if its body can
// be read again (http.Request.GetBody). So is one that the resource wants another token for (a claims challenge): if
// its body cannot be read again, the caller gets the 401, and the next request has that token. Responses are not
// buffered, errors (400 and above) are.
func (c *ImdsV2MtlsCredential) Client(scope string, hosts ...string) *http.Client {
	return c.clientWith(c, scope, hosts)
}

// clientWith is Client with the tokens of a credential that has this one do the work.
func (c *ImdsV2MtlsCredential) clientWith(tokens azcore.TokenCredential, scope string, hosts []string) *http.Client {
	if !c.made() {
		return &http.Client{Transport: &clientTransport{useless: errNotMade}}
	}
	options := policy.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // callers of net/http expect one try
		Telemetry: policy.TelemetryOptions{Disabled: true},
		// For what is not a bound token: bearer tokens.
		Transport: &http.Client{Transport: c.clients.plain.Transport, CheckRedirect: refuseRedirect},
	}
	mark := &markPolicy{binder: c.clients}
	mark.used.Store(true) // it cannot be too late
	c.clients.bind(&options, mark)
	t := &clientTransport{closeIdle: c.closeConnections}
	t.destinations, t.useless = newDestinations(hosts)
	options.Transport = bodyTransport{options.Transport}
	t.pipeline = runtime.NewPipeline(module, version, runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(tokens, []string{scope}, nil)},
	}, &options)
	return &http.Client{Transport: t}
}

// clientTransport sends the requests of an http.Client through an azcore pipeline.
type clientTransport struct {
	pipeline     runtime.Pipeline
	destinations destinations
	useless      error // why it cannot work
	closeIdle    func()
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (t *clientTransport) CloseIdleConnections() {
	if t.closeIdle != nil {
		t.closeIdle()
	}
}

func (t *clientTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	err := t.useless
	if err == nil {
		err = t.destinations.check(req)
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("azmtls: %w", err)
	}
	// The pipeline gets the request without its body, which it would read into memory; bodyTransport puts it back.
	body := &detachedBody{first: req.Body, again: req.GetBody, length: req.ContentLength, trailer: req.Trailer}
	defer body.close()
	// A caller who is an SDK client himself, with this as his transport, has retries of his own.
	ctx := policy.WithRetryOptions(req.Context(), policy.RetryOptions{MaxRetries: -1})
	bare := req.Clone(context.WithValue(ctx, bodyKey{}, body))
	bare.Body, bare.GetBody, bare.ContentLength, bare.Trailer = nil, nil, 0, nil
	p, err := runtime.NewRequestFromRequest(bare)
	if err != nil {
		return nil, err
	}
	runtime.SkipBodyDownload(p)
	resp, err := t.pipeline.Do(p)
	if err != nil {
		// azcore returns both where a challenge could not be answered.
		if resp == nil || body.isRepeatable() {
			return nil, err
		}
		eventlog.Writef(req.Context(), EventAuthentication, "the challenge of %s is not answered: %v", req.URL.Host, err)
	}
	resp.Request = req // what was sent in its place has the token
	return resp, nil
}

type bodyKey struct{}

// detachedBody is the body of a request while the request is in the pipeline.
type detachedBody struct {
	first   io.ReadCloser
	again   func() (io.ReadCloser, error)
	length  int64
	trailer http.Header // the caller's own, who writes to it while the body is read

	sent   bool
	answer *http.Response // what the request was answered with last
	failed error          // or how it failed
}

func (b *detachedBody) isNone() bool { return b.first == nil || b.first == http.NoBody }

func (b *detachedBody) isRepeatable() bool { return b.isNone() || b.again != nil }

// close closes a body that was never sent, as http.RoundTripper demands.
func (b *detachedBody) close() {
	if !b.sent && b.first != nil {
		_ = b.first.Close()
	}
}

// bodyTransport puts the body back on a request: as it came the first time, read again after that. A request whose body
// cannot be read again ends as it did the first time: an answer that azcore would have it repeated for, a claims
// challenge, is the caller's.
type bodyTransport struct{ next policy.Transporter }

func (t bodyTransport) Do(req *http.Request) (*http.Response, error) {
	body, ok := req.Context().Value(bodyKey{}).(*detachedBody)
	if !ok || body.isNone() {
		return t.next.Do(req)
	}
	full := req.Clone(req.Context())
	full.Body, full.GetBody, full.ContentLength, full.Trailer = body.first, body.again, body.length, body.trailer
	switch {
	case !body.sent:
		body.sent = true
	case body.again != nil:
		again, err := body.again()
		if err != nil {
			return nil, fmt.Errorf("azmtls: reading the request's body again: %w", err)
		}
		full.Body = again
	case body.answer != nil:
		return body.answer, nil
	default:
		return nil, fmt.Errorf("azmtls: the request is not repeated with another certificate, "+
			"since its body cannot be read again; set http.Request.GetBody: %w", body.failed)
	}
	body.answer, body.failed = t.next.Do(full)
	return body.answer, body.failed
}
