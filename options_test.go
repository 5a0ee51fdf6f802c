package azmtls

import (
	"testing"

	"github.com/azmtls/azmtls/internal/platform"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// Whoever runs the machine switches the default store off for this library as for MSAL, in the forms that MSAL knows. A
// store that the program names is used all the same.
func TestDefaultStoreIsSwitchedOff(t *testing.T) {
	for value, want := range map[string]mtls.Store{
		"1":     mtls.NoStore{},
		"true":  mtls.NoStore{},
		"TRUE":  mtls.NoStore{},
		"":      platform.Store(),
		"0":     platform.Store(),
		"false": platform.Store(),
		"yes":   platform.Store(),
		"11":    platform.Store(),
	} {
		t.Setenv("MSAL_MI_DISABLE_PERSISTENT_CERT_CACHE", value)
		var options ImdsV2MtlsCredentialOptions
		options.setDefaults()
		require.Equal(t, want, options.Store, "%q", value)

		own := &struct{ mtls.NoStore }{}
		options = ImdsV2MtlsCredentialOptions{Store: own}
		options.setDefaults()
		require.Same(t, own, options.Store, "%q", value)
	}
}
