package azmtls

import (
	"context"
)

// Renew mints a new binding now, by a certificate that IMDS has not issued before, and puts it in the place of the one in use when
// that worked. Tokens and connections that are bound to the old one serve on until they end. It costs a unit of the budget that
// also evictions and their mints draw on; without one the error says until when, and nothing changes.
//
// Credentials that share a binding share the renewal. Errors are those of [ImdsV2MtlsCredential.GetToken].
func (c *ImdsV2MtlsCredential) Renew(ctx context.Context) error {
	if err := c.bindings.renew(ctx); err != nil {
		return explain(err, nil, c.demanding)
	}
	return nil
}
