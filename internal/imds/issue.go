package imds

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls/internal/failure"
)

// Issue asks for the certificate of a request. The attestation token may be empty. With bypassCache IMDS is asked not
// to answer with a certificate that it has issued before; one that does not know of that (400) is asked without.
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
	content := streaming.NopCloser(strings.NewReader(string(body)))
	if err := req.SetBody(content, "application/json; charset=utf-8"); err != nil {
		return Issued{}, fmt.Errorf("encoding the request to IMDS: %w", err)
	}
	resp, err := c.pipeline.Do(req)
	if err == nil {
		err = c.decode(resp, &answer)
	}
	if err != nil {
		err = fmt.Errorf("asking IMDS at %s for a certificate: %w", c.endpoint, err)
		if isDefinite(err) {
			err = failure.Definite(err)
		}
		return Issued{}, err
	}
	issued, err := answer.check()
	if err != nil {
		return Issued{}, failure.Definite(fmt.Errorf("the certificate from IMDS at %s cannot be used: %w", c.endpoint, err))
	}
	issued.Date, _ = http.ParseTime(resp.Header.Get("Date"))
	return issued, nil
}
