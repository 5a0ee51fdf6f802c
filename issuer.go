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
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/internal/stage"
	"github.com/azmtls/azmtls/mtls"
)

// issuer has IMDS issue bindings.
type issuer struct {
	imds        *imds.Client
	keys        *keySource
	attestation mtls.AttestationProvider // nil: not attested
	tracing     tracer
}

// mint gets a new binding: a key, the metadata that its certificate request names, the attestation of the key if there
// is a provider, the certificate. A failure that asking again would repeat is marked as [failure.Definite].
func (i *issuer) mint(ctx context.Context, request mtls.MintRequest) (b *mtls.Binding, err error) {
	ctx, end := i.tracing.start(ctx, "mint")
	defer func() { end(err) }()
	key, metadata, err := i.prepare(ctx)
	if err != nil {
		return nil, err
	}
	der, err := csr.New(
		key,
		csr.Params{ClientID: metadata.ClientID, TenantID: metadata.TenantID, CuID: metadata.CuID.JSON()},
	)
	if err != nil {
		return nil, stage.At(stage.Key, definite(ctx, err))
	}
	jwt, err := i.attest(ctx, mtls.AttestationRequest{
		Endpoint: metadata.AttestationEndpoint, ClientID: metadata.ClientID, Key: key, Fresh: request.FreshAttestation,
	})
	if err != nil {
		return nil, definite(ctx, err)
	}
	var issued imds.Issued
	err = i.tracing.stage(ctx, stage.Issue, func(ctx context.Context) error {
		issued, err = i.imds.Issue(ctx, der, jwt, request.BypassCache)
		return err
	})
	if imds.IsRefusal(err) {
		return nil, fmt.Errorf("IMDS v2 does not certify the key of this machine (strength %s, attested: %t): %w",
			key.Strength(), jwt != "", err)
	}
	if err != nil {
		return nil, err
	}
	b, err = mtls.NewBinding(issued.Certificate, key, issued.Endpoint, issued.ClientID)
	if err == nil {
		err = vetIssued(issued, metadata)
	}
	if err != nil {
		err = failure.Definite(fmt.Errorf("IMDS issued a certificate that cannot be used: %w", err))
		return nil, stage.At(stage.Issue, err)
	}
	b.Issued = issued.Date
	i.keys.minted.Store(true)
	return b, nil
}

// prepare returns a key and the metadata. A provider other than mtls.SoftwareKeys is asked when IMDS v2 is known to be
// there, lest a laptop gets a persistent key; before it where a strength is demanded, so that a weaker one ends the
// mint before any call.
func (i *issuer) prepare(ctx context.Context) (key mtls.Key, metadata imds.Metadata, err error) {
	if i.keys.ahead() {
		return i.prepareAtOnce(ctx)
	}
	if i.keys.minStrength > mtls.StrengthNone {
		if key, err = i.key(ctx); err != nil {
			return nil, metadata, err
		}
	}
	if metadata, err = i.metadata(ctx); err == nil && key == nil {
		key, err = i.key(ctx)
	}
	return key, metadata, err
}

// prepareAtOnce makes the key while IMDS is asked. One that turns out not to be needed is kept for the next mint.
func (i *issuer) prepareAtOnce(ctx context.Context) (mtls.Key, imds.Metadata, error) {
	type made struct {
		key mtls.Key
		err error
	}
	done := make(chan made, 1)
	go func() {
		key, err := i.key(ctx)
		done <- made{key, err}
	}()
	metadata, err := i.metadata(ctx)
	m := <-done
	if err == nil {
		err = m.err
	}
	if err != nil && m.key != nil {
		i.keys.keep(m.key)
	}
	return m.key, metadata, err
}

func (i *issuer) key(ctx context.Context) (key mtls.Key, err error) {
	err = i.tracing.stage(ctx, stage.Key, func(ctx context.Context) error {
		key, err = i.keys.key(ctx)
		return err
	})
	if err != nil {
		return nil, definite(ctx, err)
	}
	return key, nil
}

func (i *issuer) metadata(ctx context.Context) (metadata imds.Metadata, err error) {
	err = i.tracing.stage(ctx, stage.Metadata, func(ctx context.Context) error {
		metadata, err = i.imds.Metadata(ctx)
		return err
	})
	return metadata, err
}

// identify asks whose machine this is.
func (i *issuer) identify(ctx context.Context) (mtls.Identity, error) {
	metadata, err := i.imds.Metadata(ctx)
	return mtls.Identity{ClientID: metadata.ClientID, TenantID: metadata.TenantID}, err
}

// definite marks the failure of a key or an attestation, unless it passes by itself.
func definite(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, mtls.ErrKeyNotNow) {
		return err
	}
	return failure.Definite(err)
}

// attest returns the attestation JWT of the key, empty if the credential does not attest.
func (i *issuer) attest(ctx context.Context, request mtls.AttestationRequest) (jwt string, err error) {
	if i.attestation == nil {
		return "", nil
	}
	err = i.tracing.stage(ctx, stage.Attestation, func(ctx context.Context) error {
		jwt, err = flight.Within(ctx, limits.Attestation, stage.Attestation, func(ctx context.Context) (string, error) {
			return i.attestation.Attest(ctx, request)
		})
		if err == nil && strings.TrimSpace(jwt) == "" {
			err = errors.New("the provider returned no token")
		}
		return err
	})
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
