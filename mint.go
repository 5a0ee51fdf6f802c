package azmtls

import (
	"context"
	"errors"
	"fmt"

	"github.com/azmtls/azmtls/internal/csr"
	"github.com/azmtls/azmtls/mtls"
)

// mint gets a new binding: a key, the metadata that its certificate request names, the attestation of the key if there is a
// provider, the certificate.
func (c *ImdsV2MtlsCredential) mint(ctx context.Context) (*mtls.Binding, error) {
	key, err := c.key(ctx)
	if err != nil {
		return nil, err
	}
	metadata, err := c.imds.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	request, err := csr.New(key, csr.Params{ClientID: metadata.ClientID, TenantID: metadata.TenantID, CuID: metadata.CuID.JSON()})
	if err != nil {
		return nil, err
	}
	attested, err := c.attest(ctx, mtls.AttestationRequest{Endpoint: metadata.AttestationEndpoint, ClientID: metadata.ClientID, Key: key})
	if err != nil {
		return nil, err
	}
	issued, err := c.imds.Issue(ctx, request, attested)
	if err != nil {
		return nil, err
	}
	b, err := mtls.NewBinding(issued.Certificate, key, issued.Endpoint, issued.ClientID)
	if err != nil {
		return nil, fmt.Errorf("IMDS issued a certificate that cannot be used: %w", err)
	}
	return b, nil
}

// key asks the provider for a key that is strong enough.
func (c *ImdsV2MtlsCredential) key(ctx context.Context) (mtls.Key, error) {
	key, err := c.options.KeyProvider.Key(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("getting a key from the key provider: %w", err)
	case key == nil:
		return nil, errors.New("the key provider returned a nil Key and no error")
	case key.Strength() < c.options.MinBindingStrength:
		return nil, fmt.Errorf("the key of the binding has strength %s where MinBindingStrength demands %s; nothing was sent", key.Strength(), c.options.MinBindingStrength)
	}
	return key, nil
}

// attest returns the attestation JWT of the key, empty if the credential does not attest.
func (c *ImdsV2MtlsCredential) attest(ctx context.Context, request mtls.AttestationRequest) (string, error) {
	if c.options.Attestation == nil {
		return "", nil
	}
	jwt, err := c.options.Attestation.Attest(ctx, request)
	if err == nil && jwt == "" {
		err = errors.New("the provider returned no token")
	}
	if err != nil {
		return "", fmt.Errorf("attesting the key at %s, no certificate was requested: %w", request.Endpoint, err)
	}
	return jwt, nil
}
