package imds_test

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/stretchr/testify/require"
)

type ownKind struct{ azidentity.ManagedIDKind }

// Each kind of id has a parameter of IMDS's and a name of its own; what is no id is refused.
func TestID(t *testing.T) {
	for _, test := range []struct {
		kind  azidentity.ManagedIDKind
		want  imds.ID
		alias string
	}{
		{nil, imds.ID{}, "system_assigned_managed_identity"},
		{azidentity.ClientID("c"), imds.ID{Param: "client_id", Value: "c"}, "c"},
		{azidentity.ObjectID("o"), imds.ID{Param: "object_id", Value: "o"}, "o"},
		{azidentity.ResourceID("/r"), imds.ID{Param: "mi_res_id", Value: "/r"}, "/r"},
	} {
		id, err := imds.IDOf(test.kind)
		require.NoError(t, err)
		require.Equal(t, test.want, id)
		require.Equal(t, test.alias+"#att=0", id.Alias(false))
		require.Equal(t, test.alias+"#att=1", id.Alias(true))
	}
	for want, kinds := range map[string][]azidentity.ManagedIDKind{
		"is none of": {ownKind{}},
		"is empty":   {azidentity.ClientID(""), azidentity.ObjectID(""), azidentity.ResourceID("")},
		"contains a char": {
			azidentity.ClientID("a|b"), azidentity.ObjectID("a\n"), azidentity.ResourceID("\r"), azidentity.ClientID("\x00"),
		},
	} {
		for _, kind := range kinds {
			_, err := imds.IDOf(kind)
			require.ErrorContains(t, err, want)
		}
	}
}
