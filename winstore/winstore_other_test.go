//go:build !windows

package winstore

import (
	"errors"
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// Who asks for Windows elsewhere is told so.
func TestElsewhere(t *testing.T) {
	ctx := t.Context()
	_, loadErr := Store{}.Load(ctx, "alias")
	_, keyErr := Keys{}.Key(ctx)
	_, _, chooseErr := Keys{}.Choose(ctx)
	_, attestErr := new(KeyGuardAttestation).Attest(ctx, mtls.AttestationRequest{})
	for _, err := range []error{loadErr, Store{}.Save(ctx, "alias", nil), Store{}.DeleteAll(ctx, "alias"), keyErr, chooseErr, attestErr} {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "Windows")
	}
}

var (
	_ mtls.Store               = Store{}
	_ mtls.KeyProvider         = Keys{}
	_ mtls.AttestationProvider = (*KeyGuardAttestation)(nil)
)
