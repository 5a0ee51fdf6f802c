package winstore

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const testEndpoint = "https://mtls.login.example/72f988bf-86f1-41af-91ab-2d7cd011db47"

// MSAL.NET must find what we store, and we what it stores: the bytes are fixed.
func TestFriendlyNameIsThatOfMSAL(t *testing.T) {
	name, err := encodeName("system_assigned_managed_identity#att=0", testEndpoint)
	require.NoError(t, err)
	require.Equal(t, "MSAL|alias=system_assigned_managed_identity#att=0|ep="+testEndpoint, name)
}

// Identities have odd names; each must come back as it went in.
func TestFriendlyNameRoundTrip(t *testing.T) {
	for _, alias := range []string{"a", "a=b=c", "ep=x", "MSAL", "Ünïcödé-身份-🔑", strings.Repeat("long/", 4000), "/subscriptions/x y/rg#att=1"} {
		name, err := encodeName(alias, testEndpoint)
		require.NoError(t, err)
		decoded, endpoint, ok := decodeName(name)
		require.True(t, ok)
		require.Equal(t, alias, decoded)
		require.Equal(t, testEndpoint, endpoint)
	}
}

// Nothing is stored under a name that would be read as another.
func TestFriendlyNameRefusesWhatItCannotHold(t *testing.T) {
	for _, bad := range []string{"", "  ", "a|b", "a\rb", "a\nb", "a\x00b"} {
		_, err := encodeName(bad, testEndpoint)
		require.Error(t, err, "alias %q", bad)
		_, err = encodeName("alias", bad)
		require.Error(t, err, "endpoint %q", bad)
	}
}

// The grammar grows in later versions of MSAL, and the store holds certificates of others.
func TestFriendlyNameDecode(t *testing.T) {
	for name, want := range map[string]struct {
		alias, endpoint string
		ok              bool
	}{
		"MSAL|alias=a|ep=e":                 {"a", "e", true},
		"MSAL|ep=e|alias=a":                 {"a", "e", true},
		"MSAL|alias=a|ep=e|v=2|flag":        {"a", "e", true},
		"MSAL|alias=a|alias=b|ep=e|ep=f":    {"b", "f", true},
		"MSAL||alias = a | ep = e ":         {"a", "e", true},
		"MSAL|alias=a=b|ep=e=f":             {"a=b", "e=f", true},
		"MSAL|alias=a":                      {},
		"MSAL|ep=e":                         {},
		"MSAL|alias=|ep=e":                  {},
		"MSAL|alias=a|ep=e|alias= ":         {},
		"MSAL|Alias=a|EP=e":                 {},
		"msal|alias=a|ep=e":                 {},
		" MSAL|alias=a|ep=e":                {},
		"MSAL":                              {},
		"":                                  {},
		"My own certificate|alias=a|ep=e":   {},
		"MSAL|alias=a|ep=e\x00|alias=other": {"other", "e\x00", true},
	} {
		alias, endpoint, ok := decodeName(name)
		require.Equal(t, want.ok, ok, "%q", name)
		if ok {
			require.Equal(t, want.alias, alias, "%q", name)
			require.Equal(t, want.endpoint, endpoint, "%q", name)
		}
	}
}

// What encodeName accepts comes back unchanged but for white space around it, and decodeName takes any bytes.
func FuzzFriendlyName(f *testing.F) {
	f.Add("system_assigned_managed_identity#att=0", testEndpoint)
	f.Add("a=b", "ep=")
	f.Add("|", "\x00")
	f.Fuzz(func(t *testing.T, alias, endpoint string) {
		_, _, _ = decodeName(alias)
		name, err := encodeName(alias, endpoint)
		if err != nil {
			return
		}
		decodedAlias, decodedEndpoint, ok := decodeName(name)
		if !ok || decodedAlias != strings.TrimSpace(alias) || decodedEndpoint != strings.TrimSpace(endpoint) {
			t.Fatalf("%q decodes to (%q, %q, %t)", name, decodedAlias, decodedEndpoint, ok)
		}
	})
}
