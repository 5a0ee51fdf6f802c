package imds

import (
	"context"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/answered"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/limits"
)

// Metadata asks what the machine and the identity are. The error is an *UnavailableError when there is no IMDS v2 here,
// or none that is for this credential.
func (c *Client) Metadata(ctx context.Context) (Metadata, error) {
	var m Metadata
	req, err := c.request(ctx, http.MethodGet, MetadataPath)
	if err != nil {
		return m, err
	}
	resp, err := c.firstRequest(ctx, req)
	if err != nil {
		return m, fmt.Errorf("asking IMDS at %s for the platform metadata: %w", c.endpoint, err)
	}
	if resp.StatusCode == http.StatusNotFound {
		reason := fmt.Sprintf("IMDS at %s has no version 2: it answered 404 to getplatformmetadata", c.endpoint)
		return m, &UnavailableError{Absence: NoVersion2, reason: reason}
	}
	err = c.decode(resp, &m)
	if resp.StatusCode == http.StatusBadRequest && c.id == (ID{}) {
		reason := fmt.Sprintf("IMDS at %s knows no identity of this machine, or several, and the credential names none (ID)",
			c.endpoint)
		return m, &UnavailableError{Absence: NoIdentity, reason: reason, cause: err}
	}
	if err != nil {
		return Metadata{}, fmt.Errorf("asking IMDS at %s for the platform metadata: %w", c.endpoint, err)
	}
	if err := m.check(); err != nil {
		return Metadata{}, fmt.Errorf("the platform metadata from IMDS at %s cannot be used: %w", c.endpoint, err)
	}
	return m, nil
}

// firstRequest sends the request that finds out whether IMDS is there: it gives up early where nothing listens or has
// ever answered, by the note of the context or, without one, to this Client.
func (c *Client) firstRequest(ctx context.Context, req *policy.Request) (*http.Response, error) {
	limited, done, cancel := c.clock.WithLimit(ctx, limits.FirstAnswer)
	defer cancel()
	note := answered.Note(ctx)
	if note == nil {
		note = &c.answered
	}
	if note.Load() {
		done()
	}
	first := func() {
		done()
		note.Store(true)
	}
	resp, err := c.pipeline.Do(req.Clone(context.WithValue(limited, answeredKey{}, first)))
	switch late := clock.LimitOf(limited); {
	case err == nil || ctx.Err() != nil:
		return resp, err
	case late != nil:
		reason := fmt.Sprintf("IMDS was looked for at %s, and nothing answered within %s", c.endpoint, late.Limit)
		return nil, &UnavailableError{Absence: NoIMDS, reason: reason}
	case isDialError(err):
		reason := fmt.Sprintf("IMDS was looked for at %s, and nothing listens there", c.endpoint)
		return nil, &UnavailableError{Absence: NoIMDS, reason: reason, cause: err}
	}
	return nil, err
}
