// Package imds speaks to the instance metadata service, version 2: it asks what the machine is, and for certificates.
package imds

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/google/uuid"
)

const (
	defaultEndpoint = "http://169.254.169.254"
	endpointEnv     = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
	metadataPath    = "/metadata/identity/getplatformmetadata"
	issuePath       = "/metadata/identity/issuecredential"
	apiVersion      = "2.0"
)

// ID says which identity is meant. The zero value is the system-assigned one.
type ID struct {
	Param string // "client_id", "mi_res_id" or "object_id"
	Value string
}

// Options of a Client.
type Options struct {
	// ClientOptions serves the requests; its Retry is ignored, since IMDS has rules of its own.
	azcore.ClientOptions
	// Endpoint is the base URL. Empty: that of AZURE_POD_IDENTITY_AUTHORITY_HOST, else http://169.254.169.254.
	Endpoint string
	// ID is the identity to ask for.
	ID ID
	// Clock is nil but in tests.
	Clock *clock.Clock
}

// Client asks IMDS.
type Client struct {
	endpoint  string
	id        ID
	clock     *clock.Clock
	pipeline  runtime.Pipeline
	closeIdle func()
	answered  atomic.Bool // something has answered
}

// New returns a Client. It makes no network call.
func New(o Options) (*Client, error) {
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = os.Getenv(endpointEnv)
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" ||
		u.Fragment != "" {
		return nil, fmt.Errorf(
			"the IMDS endpoint (%s) must be a URL like %s, without userinfo, query or fragment",
			endpointEnv,
			defaultEndpoint,
		)
	}
	c := &Client{endpoint: strings.TrimSuffix(endpoint, "/"), id: o.ID, clock: o.Clock}
	next, closeIdle := withoutRedirects(o.Transport)
	c.closeIdle = closeIdle
	options := o.ClientOptions
	options.Transport = transport{next: next}
	options.Retry = policy.RetryOptions{MaxRetries: -1}
	options.Logging.IncludeBody = false // bodies hold certificate requests
	c.pipeline = runtime.NewPipeline("azmtls/imds", "v"+apiVersion, runtime.PipelineOptions{
		PerCall:                []policy.Policy{retryPolicy{o.Clock}},
		AllowedQueryParameters: []string{"cred-api-version", "bypass_cache"},
	}, &options)
	return c, nil
}

// Endpoint returns the base URL in use.
func (c *Client) Endpoint() string { return c.endpoint }

// CloseIdle closes idle connections, unless they are those of a transporter of the caller's.
func (c *Client) CloseIdle() { c.closeIdle() }

// Metadata asks what the machine and the identity are. The error is an *UnavailableError when there is no IMDS v2 here.
func (c *Client) Metadata(ctx context.Context) (Metadata, error) {
	var m Metadata
	req, err := c.request(ctx, http.MethodGet, metadataPath)
	if err != nil {
		return m, err
	}
	resp, err := c.firstRequest(ctx, req)
	if err != nil {
		return m, fmt.Errorf("asking IMDS for the platform metadata: %w", err)
	}
	switch server := resp.Header.Get("Server"); {
	case resp.StatusCode == http.StatusNotFound:
		return m, &UnavailableError{reason: "IMDS at " + c.endpoint + " has no version 2 (404 to getplatformmetadata)"}
	case resp.StatusCode == http.StatusOK && !strings.Contains(strings.ToUpper(server), "IMDS"):
		return m, &UnavailableError{
			reason: fmt.Sprintf("what answers at %s is not IMDS (Server: %.40q)", c.endpoint, server),
		}
	}
	if err := c.decode(resp, &m); err != nil {
		return Metadata{}, fmt.Errorf("asking IMDS for the platform metadata: %w", err)
	}
	if err := m.check(); err != nil {
		return Metadata{}, fmt.Errorf("the platform metadata from IMDS cannot be used: %w", err)
	}
	return m, nil
}

// firstRequest sends the request that finds out whether IMDS is there: it gives up early where nothing listens or has ever answered.
func (c *Client) firstRequest(ctx context.Context, req *policy.Request) (*http.Response, error) {
	limited, done, cancel := c.clock.WithLimit(ctx, limits.FirstAnswer)
	defer cancel()
	answered := func() {
		done()
		c.answered.Store(true)
	}
	if c.answered.Load() {
		done()
	}
	resp, err := c.pipeline.Do(req.Clone(context.WithValue(limited, answeredKey{}, answered)))
	switch late, _ := errors.AsType[*clock.LimitError](context.Cause(limited)); {
	case err == nil || ctx.Err() != nil:
		return resp, err
	case late != nil:
		return nil, &UnavailableError{
			reason: fmt.Sprintf("IMDS at %s did not answer within %s", c.endpoint, late.Limit),
			cause:  err,
		}
	case isDialError(err):
		return nil, &UnavailableError{reason: "nothing listens at " + c.endpoint, cause: err}
	}
	return nil, err
}

// Issue asks for the certificate of a request. The attestation token may be empty. With bypassCache IMDS is asked not to answer
// with a certificate that it has issued before; one that does not know of that (400) is asked without.
//
// An error that asking again would repeat is marked as [failure.Definite]: a refusal, or an answer that cannot be used.
func (c *Client) Issue(ctx context.Context, csr []byte, attestationToken string, bypassCache bool) (Issued, error) {
	issued, err := c.issue(ctx, csr, attestationToken, bypassCache)
	if refused, ok := errors.AsType[*Error](err); ok && bypassCache && refused.StatusCode == http.StatusBadRequest {
		return c.issue(ctx, csr, attestationToken, false)
	}
	return issued, err
}

func (c *Client) issue(ctx context.Context, csr []byte, attestationToken string, bypassCache bool) (Issued, error) {
	var answer issueAnswer
	req, err := c.request(ctx, http.MethodPost, issuePath)
	if err != nil {
		return Issued{}, err
	}
	if bypassCache {
		req.Raw().URL.RawQuery += "&bypass_cache=true"
	}
	body, err := json.Marshal(struct {
		CSR         string `json:"csr"`
		Attestation string `json:"attestation_token,omitempty"`
	}{base64.StdEncoding.EncodeToString(csr), attestationToken})
	if err != nil {
		return Issued{}, fmt.Errorf("encoding the request to IMDS: %w", err)
	}
	if err := req.SetBody(streaming.NopCloser(strings.NewReader(string(body))), "application/json; charset=utf-8"); err != nil {
		return Issued{}, fmt.Errorf("encoding the request to IMDS: %w", err)
	}
	resp, err := c.pipeline.Do(req)
	if err == nil {
		err = c.decode(resp, &answer)
	}
	if err != nil {
		err = fmt.Errorf("asking IMDS for a certificate: %w", err)
		if isDefinite(err) {
			err = failure.Definite(err)
		}
		return Issued{}, err
	}
	issued, err := answer.check()
	if err != nil {
		return Issued{}, failure.Definite(fmt.Errorf("the certificate from IMDS cannot be used: %w", err))
	}
	issued.Date, _ = http.ParseTime(resp.Header.Get("Date"))
	return issued, nil
}

// request returns a request with what every request to IMDS must have.
func (c *Client) request(ctx context.Context, method, path string) (*policy.Request, error) {
	req, err := runtime.NewRequest(ctx, method, c.endpoint+path)
	if err != nil {
		return nil, fmt.Errorf("building the request to IMDS: %w", err)
	}
	query := url.Values{"cred-api-version": {apiVersion}}
	if c.id.Value != "" {
		query.Set(c.id.Param, c.id.Value)
	}
	req.Raw().URL.RawQuery = query.Encode()
	req.Raw().Header.Set("Metadata", "true")
	req.Raw().Header.Set("x-ms-client-request-id", uuid.NewString()) // the live service refuses a request without it
	return req, nil
}

// decode reads the JSON of a 200, and makes an error of any other status: one that asks for a pause, if IMDS asked for one that is
// too long to be waited for.
func (c *Client) decode(resp *http.Response, into any) error {
	if resp.StatusCode != http.StatusOK {
		return c.newError(resp)
	}
	body, err := runtime.Payload(resp)
	if err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return malformedError{err}
	}
	return nil
}
