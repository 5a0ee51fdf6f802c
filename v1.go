package azmtls

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/internal/stage"
	"github.com/azmtls/azmtls/internal/tokencache"
)

// v1Credential is azidentity's credential: it has bearer tokens of IMDS v1, or of what the environment says.
type v1Credential struct {
	cred    azcore.TokenCredential
	tracing tracer
	flights flight.Group[tokencache.Request, azcore.AccessToken]
}

func newV1Credential(o ImdsV2MtlsCredentialOptions, c *clock.Clock, t tracer) (*v1Credential, error) {
	options := o.ClientOptions
	options.Logging.IncludeBody = false // the answers hold tokens
	options.APIVersion = ""             // is for the services of SDK clients
	cred, err := azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options, ID: o.ID},
	)
	if err != nil {
		return nil, fmt.Errorf("azidentity: %w", err)
	}
	v := &v1Credential{cred: cred, tracing: t}
	v.flights.Clock = c
	return v, nil
}

// token returns a bearer token. Callers who want the same one at the same time share it. azidentity gets a context of
// its own: what a caller put into the context of its call, headers for example, is not for IMDS.
func (v *v1Credential) token(ctx context.Context, r tokencache.Request) (azcore.AccessToken, error) {
	carry := v.tracing.carry(ctx)
	return v.flights.Do(ctx, r, limits.Token, func(ctx context.Context) (azcore.AccessToken, error) {
		return flight.Within(carry(ctx), limits.V1, stage.V1, func(ctx context.Context) (azcore.AccessToken, error) {
			return v.cred.GetToken(ctx, policy.TokenRequestOptions{
				Scopes: []string{r.Resource + "/.default"}, Claims: r.Claims, EnableCAE: r.CAE,
			})
		})
	})
}
