package azmtls

import (
	"net/http"
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

// What a Cache compares can be compared, and what the caller does to a template later changes nothing.
func TestOptionsAreMadeSafe(t *testing.T) {
	given := ImdsV2MtlsCredentialOptions{
		KeyProvider: struct {
			mtls.SoftwareKeys
			_ []string // which makes it uncomparable
		}{},
		Store: struct {
			mtls.NoStore
			_ []string
		}{},
		MTLSTransport: &http.Transport{},
	}
	one, other := given, given
	one.setDefaults()
	other.setDefaults()
	require.NotSame(t, one.KeyProvider, other.KeyProvider)
	require.NotSame(t, one.Store, other.Store)
	given.MTLSTransport.MaxIdleConns = 5
	require.Zero(t, one.MTLSTransport.MaxIdleConns)

	given = ImdsV2MtlsCredentialOptions{KeyProvider: mtls.SoftwareKeys{}, Store: mtls.NoStore{}}
	same := given
	same.setDefaults()
	require.Equal(t, given.KeyProvider, same.KeyProvider)
	require.Equal(t, given.Store, same.Store)
}
