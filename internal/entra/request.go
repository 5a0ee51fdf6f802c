// Package entra speaks to the mTLS token endpoint of Entra: it puts the request for a token on the wire and reads the
// answer.
package entra

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
)

const (
	// TypeMtlsPoP is the token_type of a token bound to the client certificate (RFC 8705).
	TypeMtlsPoP = "mtls_pop"
	// TypeBearer is the token_type of an ordinary token.
	TypeBearer = "bearer"
)

// Request is what is asked of the token endpoint.
type Request struct {
	// Resource is the audience, without "/.default".
	Resource string
	// TokenType is TypeMtlsPoP or TypeBearer.
	TokenType string
	// Claims is the JSON object of the claims parameter, empty for none. See MergeClaims.
	Claims string
}

// tokenPath follows the endpoint of a binding in the URL of its token requests.
const tokenPath = "/oauth2/v2.0/token"

// Prepare makes req the request for a token with the binding: its endpoint, its client id. The tenant in the URL is
// shortened, since azcore logs and traces URLs; Disclose restores it below them.
func (r Request) Prepare(req *policy.Request, b *mtls.Binding) error {
	endpoint, err := url.Parse(b.Endpoint)
	if err != nil {
		return fmt.Errorf("the token endpoint of the binding is not a URL: %w", err)
	}
	endpoint.Path = "/" + eventlog.Mask(path.Base(endpoint.Path)) + tokenPath
	raw := req.Raw()
	raw.Method, raw.URL, raw.Host = http.MethodPost, endpoint, endpoint.Host
	form := url.Values{
		"client_id":  {b.ClientID},
		"grant_type": {"client_credentials"},
		"scope":      {r.Resource + "/.default"},
		"token_type": {r.TokenType},
	}
	if r.Claims != "" {
		form.Set("claims", r.Claims)
	}
	raw.Header.Set("Accept", "application/json")
	raw.Header.Set("client-request-id", correlation.ID(raw.Context()))
	raw.Header.Set("return-client-request-id", "true")
	body := streaming.NopCloser(strings.NewReader(form.Encode()))
	return req.SetBody(body, "application/x-www-form-urlencoded")
}

// Disclose gives the request the full URL of the binding's token endpoint.
func Disclose(req *http.Request, b *mtls.Binding) error {
	endpoint, err := url.Parse(b.Endpoint + tokenPath)
	if err != nil {
		return fmt.Errorf("the token endpoint of the binding is not a URL: %w", err)
	}
	req.URL, req.Host = endpoint, endpoint.Host
	return nil
}

// placeholder stands for the endpoint until Prepare sets it: which endpoint a request goes to is the binding's to say.
const placeholder = "https://token.endpoint.of.the.binding.invalid"

// NewRequest returns the request that Prepare completes.
func NewRequest(ctx context.Context) (*policy.Request, error) {
	return runtime.NewRequest(ctx, http.MethodPost, placeholder)
}
