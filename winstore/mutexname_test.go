package winstore

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Go and a .NET process take turns only if they agree on the name, to the last digit.
func TestMutexNames(t *testing.T) {
	sum := sha256.Sum256([]byte("MY-ALIAS#ATT=0"))
	want := fmt.Sprintf("MSAL_MI_P_%x", sum[:16])
	require.Len(t, want, len("MSAL_MI_P_")+32)
	for _, alias := range []string{"my-alias#att=0", "MY-ALIAS#ATT=0", "  My-Alias#att=0\t"} {
		require.Equal(t, []string{`Global\` + want, `Local\` + want}, mutexNames(alias), "%q", alias)
	}
	require.NotEqual(t, mutexNames("a"), mutexNames("b"))
	require.Equal(t, "0", mutexSuffix(" "), "as MSAL.NET's")
}

// .NET's invariant upper case differs from Unicode's for the letters that would become ASCII.
func TestMutexNameCase(t *testing.T) {
	require.Equal(t, mutexSuffix("é"), mutexSuffix("É"))
	require.NotEqual(t, mutexSuffix("ı"), mutexSuffix("I"))
	require.NotEqual(t, mutexSuffix("ſ"), mutexSuffix("S"))
}
