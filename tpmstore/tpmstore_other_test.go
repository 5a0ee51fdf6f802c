//go:build !linux

package tpmstore

import (
	"errors"
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// Who asks for a TPM of Linux elsewhere is told so.
func TestElsewhere(t *testing.T) {
	ctx := t.Context()
	_, loadErr := Store{}.Load(ctx, "alias")
	_, keyErr := Keys{}.Key(ctx)
	_, _, chooseErr := Keys{}.Choose(ctx)
	for _, err := range []error{
		loadErr, Store{}.Save(ctx, "alias", nil), Store{}.DeleteAll(ctx, "alias"), keyErr, chooseErr, Keys{}.Reachable(),
	} {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "only on Linux")
	}
}

var (
	_ mtls.Store       = Store{}
	_ mtls.KeyProvider = Keys{}
	_ mtls.Chooser     = Keys{}
)
