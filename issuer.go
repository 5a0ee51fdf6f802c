package azmtls

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/azmtls/azmtls/internal/csr"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/mtls"
)

// issuer has IMDS issue bindings.
type issuer struct {
	imds        *imds.Client
	keys        mtls.KeyProvider
	minStrength mtls.BindingStrength
	attestation mtls.AttestationProvider // nil: not attested
}

// mint gets a new binding: a key, the metadata that its certificate request names, the attestation of the key if there is a
// provider, the certificate. A failure that asking again would repeat is marked as [failure.Definite].
func (i *issuer) mint(ctx context.Context, request mtls.MintRequest) (*mtls.Binding, error) {
	key, err := i.key(ctx)
	if err != nil {
		return nil, definite(ctx, err)
	}
	metadata, err := i.imds.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	der, err := csr.New(key, csr.Params{ClientID: metadata.ClientID, TenantID: metadata.TenantID, CuID: metadata.CuID.JSON()})
	if err != nil {
		return nil, definite(ctx, err)
	}
	jwt, err := i.attest(ctx, mtls.AttestationRequest{
		Endpoint: metadata.AttestationEndpoint, ClientID: metadata.ClientID, Key: key, Fresh: request.FreshAttestation,
	})
	if err != nil {
		return nil, definite(ctx, err)
	}
	issued, err := i.imds.Issue(ctx, der, jwt, request.BypassCache)
	if err != nil {
		return nil, err
	}
	b, err := mtls.NewBinding(issued.Certificate, key, issued.Endpoint, issued.ClientID)
	if err == nil {
		err = vetIssued(issued, metadata)
	}
	if err != nil {
		return nil, failure.Definite(fmt.Errorf("IMDS issued a certificate that cannot be used: %w", err))
	}
	b.Issued = issued.Date
	return b, nil
}

// definite marks the failure of a key or an attestation, unless it passes by itself.
func definite(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, mtls.ErrKeyNotNow) {
		return err
	}
	return failure.Definite(err)
}

// key asks the provider for a key that is strong enough.
func (i *issuer) key(ctx context.Context) (mtls.Key, error) {
	key, err := i.keys.Key(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("getting a key from the key provider: %w", err)
	case key == nil:
		return nil, errors.New("the key provider returned a nil Key and no error")
	case key.Strength() < i.minStrength:
		return nil, fmt.Errorf("the key of the binding has strength %s where MinBindingStrength demands %s; nothing was sent",
			key.Strength(), i.minStrength)
	}
	return key, nil
}

// attest returns the attestation JWT of the key, empty if the credential does not attest.
func (i *issuer) attest(ctx context.Context, request mtls.AttestationRequest) (string, error) {
	if i.attestation == nil {
		return "", nil
	}
	jwt, err := i.attestation.Attest(ctx, request)
	if err == nil && strings.TrimSpace(jwt) == "" {
		err = errors.New("the provider returned no token")
	}
	if err != nil {
		return "", fmt.Errorf("attesting the key at %s, no certificate was requested: %w", request.Endpoint, err)
	}
	return jwt, nil
}

// vetIssued returns why a certificate is not the one that the machine's metadata led to expect, nil if it is.
func vetIssued(issued imds.Issued, metadata imds.Metadata) error {
	leaf := issued.Certificate
	switch {
	case !strings.EqualFold(issued.ClientID, metadata.ClientID):
		return errors.New("it is for another client id than the metadata's")
	case !strings.EqualFold(issued.TenantID, metadata.TenantID):
		return errors.New("it is for another tenant than the metadata's")
	case !strings.EqualFold(leaf.Subject.CommonName, issued.ClientID):
		return errors.New("its subject CN is not the client id")
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("its extended key usage is not client authentication")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key usage does not include digital signatures")
	}
	return nil
}
