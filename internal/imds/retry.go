package imds

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/limits"
)

const (
	retries     = 3           // at 1, 2 and 4 s
	firstDelay  = time.Second // doubles
	goneRetries = 7           // 410: IMDS is being updated, which takes up to 70 s
	goneDelay   = 10 * time.Second
	maxDelay    = time.Minute // a Retry-After beyond this ends the retries
	maxGone     = 2 * time.Minute
)

// retryPolicy repeats requests by MSAL's rules for IMDS, which azcore's own policy cannot express.
type retryPolicy struct{ clock *clock.Clock }

func (p retryPolicy) Do(req *policy.Request) (*http.Response, error) {
	ctx := req.Raw().Context()
	ordinary, gone := 0, 0
	for {
		if err := req.RewindBody(); err != nil {
			return nil, fmt.Errorf("repeating the request: %w", err)
		}
		resp, err := p.try(req, ordinary)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var delay time.Duration
		switch {
		case err != nil && !worthRepeating(req, err), err == nil && !repeatable(req, resp.StatusCode):
			return resp, err
		case err == nil && resp.StatusCode == http.StatusGone:
			if gone++; gone > goneRetries {
				return resp, nil
			}
			delay = goneDelay
		default:
			if ordinary++; ordinary > retries {
				return resp, err
			}
			delay = firstDelay << (ordinary - 1)
		}
		if err == nil {
			if after, ok := retryAfter(resp, p.clock.Wall()); ok {
				if after > longest(resp) {
					return resp, nil // decode makes a pause of it
				}
				if resp.StatusCode == http.StatusGone && after > goneDelay {
					gone = goneRetries // once it has passed, the update should be over
				}
				delay = max(delay, after) // a date in the past, or 0, does not shorten our own
			}
			_ = resp.Body.Close()
		}
		if err := p.clock.Wait(ctx, delay); err != nil {
			return nil, err
		}
	}
}

// try sends the request once, for as long as it may take.
func (p retryPolicy) try(req *policy.Request, number int) (*http.Response, error) {
	limit := limits.Metadata
	if !isMetadata(req) {
		limit = limits.Issue[min(number, len(limits.Issue)-1)]
	}
	ctx, _, cancel := p.clock.WithLimit(req.Raw().Context(), limit)
	defer cancel() // transport has read the whole answer
	resp, err := req.Clone(ctx).Next()
	if late := clock.LimitOf(ctx); late != nil && err != nil {
		return nil, late
	}
	return resp, err
}

func isMetadata(req *policy.Request) bool { return strings.HasSuffix(req.Raw().URL.Path, MetadataPath) }

// longest returns the longest Retry-After that is waited for.
func longest(resp *http.Response) time.Duration {
	if resp.StatusCode == http.StatusGone {
		return maxGone
	}
	return maxDelay
}

// repeatable reports whether a status is worth another try. A 404 of the metadata is final: there is no IMDS v2.
func repeatable(req *policy.Request, status int) bool {
	return isRepeatable(status) || (status == http.StatusNotFound && !isMetadata(req))
}

// isRepeatable reports whether a status is one that passes.
func isRepeatable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusGone, http.StatusTooManyRequests:
		return true
	default:
		return status >= 500 && status != http.StatusNotImplemented
	}
}

// worthRepeating reports whether a failed request is worth another try. That nothing listens is final for the metadata:
// a credential chain waits for the answer.
func worthRepeating(req *policy.Request, err error) bool {
	final, ok := errors.AsType[interface {
		error
		NonRetriable()
	}](err)
	if ok && final != nil {
		return false
	}
	return !isDialError(err) || !isMetadata(req)
}

// retryAfter reads how long the service asks to wait.
func retryAfter(resp *http.Response, now time.Time) (time.Duration, bool) {
	for _, header := range []struct {
		name string
		unit time.Duration
	}{{"retry-after-ms", time.Millisecond}, {"x-ms-retry-after-ms", time.Millisecond}, {"Retry-After", time.Second}} {
		value := resp.Header.Get(header.name)
		if n, err := strconv.Atoi(value); err == nil && n >= 0 {
			return time.Duration(min(n, int(time.Hour/header.unit))) * header.unit, true
		}
		if date, err := http.ParseTime(value); err == nil {
			return max(date.Sub(now), 0), true
		}
	}
	return 0, false
}
