package azmtls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// Client returns an http.Client for one resource, for programs without an SDK client. It sends every request with a token for
// the scope, by the rules of a bound client: see [ImdsV2MtlsCredential.BindClientOptions]. It speaks https only and follows
// redirects on the same host only. A request whose connection or certificate failed is repeated at most once for each
// reason, and only if its body can be read again (http.Request.GetBody). Responses are not buffered.
func (c *ImdsV2MtlsCredential) Client(scope string) *http.Client {
	options := policy.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // callers of net/http expect one try
		Telemetry: policy.TelemetryOptions{Disabled: true},
		// For what is not a bound token: bearer tokens.
		Transport: &http.Client{Transport: c.clients.plain.Transport, CheckRedirect: refuseRedirect},
	}
	c.BindClientOptions(&options)
	options.Transport = bodyTransport{options.Transport}
	pipeline := runtime.NewPipeline(module, version, runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(c, []string{scope}, nil)},
	}, &options)
	return &http.Client{Transport: clientTransport{pipeline, c.closeConnections}, CheckRedirect: sameHost}
}

func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// sameHost refuses redirects that would carry the token away.
func sameHost(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errors.New("azmtls: stopped after 10 redirects")
	case req.URL.Scheme != "https" || req.URL.Host != via[0].URL.Host:
		return fmt.Errorf(
			"azmtls: redirect from %s to %s://%s refused, the token is for the first host",
			via[0].URL.Host,
			req.URL.Scheme,
			req.URL.Host,
		)
	}
	return nil
}

// clientTransport sends the requests of an http.Client through an azcore pipeline.
type clientTransport struct {
	pipeline  runtime.Pipeline
	closeIdle func()
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (t clientTransport) CloseIdleConnections() { t.closeIdle() }

func (t clientTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("azmtls: a token is sent over https only, not to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	// The pipeline gets the request without its body, which it would read into memory; bodyTransport puts it back.
	body := &detachedBody{first: req.Body, again: req.GetBody, length: req.ContentLength}
	defer body.close()
	bare := req.Clone(context.WithValue(req.Context(), bodyKey{}, body))
	bare.Body, bare.GetBody, bare.ContentLength = nil, nil, 0
	p, err := runtime.NewRequestFromRequest(bare)
	if err != nil {
		return nil, err
	}
	runtime.SkipBodyDownload(p)
	resp, err := t.pipeline.Do(p)
	if err != nil {
		return nil, err // azcore may return both
	}
	return resp, nil
}

type bodyKey struct{}

// detachedBody is the body of a request while the request is in the pipeline.
type detachedBody struct {
	first  io.ReadCloser
	again  func() (io.ReadCloser, error)
	length int64
	sent   bool
}

// close closes a body that was never sent, as http.RoundTripper demands.
func (b *detachedBody) close() {
	if !b.sent && b.first != nil {
		_ = b.first.Close()
	}
}

// bodyTransport puts the body back on a request: as it came the first time, read again after that.
type bodyTransport struct{ next policy.Transporter }

func (t bodyTransport) Do(req *http.Request) (*http.Response, error) {
	body, ok := req.Context().Value(bodyKey{}).(*detachedBody)
	if !ok || body.first == nil || body.first == http.NoBody {
		return t.next.Do(req)
	}
	full := req.Clone(req.Context())
	full.Body, full.GetBody, full.ContentLength = body.first, body.again, body.length
	if body.sent {
		if body.again == nil {
			return nil, errors.New(
				"azmtls: the certificate was replaced, but the request cannot be repeated: its body cannot be read again; set http.Request.GetBody",
			)
		}
		again, err := body.again()
		if err != nil {
			return nil, fmt.Errorf("azmtls: reading the request's body again: %w", err)
		}
		full.Body = again
	}
	body.sent = true
	return t.next.Do(full)
}
