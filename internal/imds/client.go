// Package imds speaks to the instance metadata service, version 2: it asks what the machine is, and for certificates.
package imds

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/problem"
)

const (
	defaultEndpoint = "http://169.254.169.254"
	endpointEnv     = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
	issuePath       = "/metadata/identity/issuecredential"
	apiVersion      = "2.0"
)

// MetadataPath is where IMDS v2 says what the machine is.
const MetadataPath = "/metadata/identity/getplatformmetadata"

// Query returns the query of a request to IMDS v2.
func Query(id ID) url.Values {
	query := url.Values{"cred-api-version": {apiVersion}}
	if id.Value != "" {
		query.Set(id.Param, id.Value)
	}
	return query
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
	answered  atomic.Bool // something has, to this Client
}

// New returns a Client. It makes no network call.
func New(o Options) (*Client, error) {
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = Endpoint()
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.ForceQuery || strings.Contains(endpoint, "#") {
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

// Endpoint returns the base URL of the machine's IMDS, as the environment has it.
func Endpoint() string {
	if endpoint := os.Getenv(endpointEnv); endpoint != "" {
		return endpoint
	}
	return defaultEndpoint
}

// Endpoint returns the base URL in use.
func (c *Client) Endpoint() string { return c.endpoint }

// CloseIdle closes idle connections, unless they are those of a transporter of the caller's.
func (c *Client) CloseIdle() { c.closeIdle() }

// request returns a request with what every request to IMDS must have.
func (c *Client) request(ctx context.Context, method, path string) (*policy.Request, error) {
	req, err := runtime.NewRequest(ctx, method, c.endpoint+path)
	if err != nil {
		return nil, fmt.Errorf("building the request to IMDS: %w", err)
	}
	req.Raw().URL.RawQuery = Query(c.id).Encode()
	req.Raw().Header.Set("Metadata", "true")
	req.Raw().Header.Set("x-ms-client-request-id", correlation.ID(ctx)) // the live service refuses a request without it
	return req, nil
}

// decode reads the JSON of a 200, and makes an error of any other status: one that asks for a pause, if IMDS asked for
// one that is too long to be waited for.
func (c *Client) decode(resp *http.Response, into any) error {
	if resp.StatusCode != http.StatusOK {
		return c.newError(resp)
	}
	body, err := runtime.Payload(resp)
	if err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	if err := json.Unmarshal(problem.WithoutBOM(body), into); err != nil {
		return malformedError{err}
	}
	return nil
}
