package azmtls

import (
	"context"
	"time"
)

// NewCredentialAt creates a credential with a clock of the test's. Waits between requests to IMDS take no time.
func NewCredentialAt(now func() time.Time, options *ImdsV2MtlsCredentialOptions) (*ImdsV2MtlsCredential, error) {
	return newCredential(options, environment{
		now:   now,
		sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	})
}

// DemandsTokenBinding is tested against the hosts of all clouds.
var DemandsTokenBinding = demandsTokenBinding
