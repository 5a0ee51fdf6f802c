package machine_test

import (
	"context"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/cmd/azmtls/internal/machine"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// saved notes the alias that a binding is saved under.
type saved struct {
	mtls.NoStore
	alias string
}

func (s *saved) Save(_ context.Context, alias string, _ *mtls.Binding) error {
	s.alias = alias
	return nil
}

// The alias of a machine is the one that the library stores its bindings under.
func TestAlias(t *testing.T) {
	const guid = "11111111-2222-3333-4444-555555555555"
	for _, id := range []string{"", guid, "object:" + guid, "/subscriptions/s/resourceGroups/g"} {
		m, err := machine.Open(machine.Config{ID: id, Simulate: true})
		require.NoError(t, err)
		t.Cleanup(m.Close)
		store := &saved{}
		m.Options.Store = store
		cred, err := azmtls.NewImdsV2MtlsCredential(&m.Options)
		require.NoError(t, err)
		_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
		require.NoError(t, err)
		require.NoError(t, cred.Close())
		require.Equal(t, store.alias, m.Alias(), id)
	}
}
