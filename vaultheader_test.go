package azmtls_test

import (
	"net/http"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// client returns a client that is bound to a credential in the network, with policies of the caller's own.
func (n *network) client(own ...policy.Policy) runtime.Pipeline {
	n.Helper()
	n.cred = n.credential(azmtls.TokenTypeAuto)
	options := &azcore.ClientOptions{PerRetryPolicies: own}
	n.cred.BindClientOptions(options)
	return sdkClient(n.cred, options)
}

// Key Vault and Managed HSM ask for the certificate of a request that says so by its header; other services do not know
// it.
func TestHeaderOfKeyVault(t *testing.T) {
	for host, want := range map[string]string{
		"my.vault.azure.net":              "true",
		"my.vault.azure.net.":             "true",
		"MY.VAULT.azure.cn":               "true",
		"my.managedhsm.usgovcloudapi.net": "true",
		"my.vault.sovcloud-api.fr":        "true",
		"my.managedhsm.sovcloud-api.de.":  "true",
		"my.vault.sovcloud-api.fr:443":    "true",
		"vault.azure.net":                 "",
		"myvault.azure.net":               "",
		"my.blob.core.windows.net":        "",
	} {
		n := newNetwork(t)
		_, body, err := send(t.Context(), n.client(), http.MethodGet, "https://"+host+"/", "")
		require.NoError(t, err, host)
		require.Equal(t, "mtls_pop ", body)
		require.Equal(t, []string{want}, n.asked, host)
		n.noRejections()
	}
}

// When a request goes out as bearer after all, over a connection without the certificate, it must not ask for it.
func TestHeaderOfKeyVaultGoesWithTheBinding(t *testing.T) {
	unbindable := imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS3921996"}
	recovery := func(n *network) {
		require.NoError(n, n.cred.Close())
		bad := n.store.get(alias).Thumbprint()
		n.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: vaultRefuses, Thumbprint: bad})
		n.declines(unbindable, 1)
	}
	asks := policyFunc(func(req *policy.Request) (*http.Response, error) {
		req.Raw().Header.Set("x-ms-tokenboundauth", "true")
		return req.Next()
	})
	for name, test := range map[string]struct {
		url  string
		own  []policy.Policy
		stop func(*network) // after a first request with a bound token; nil: there is none
	}{
		"from the start":        {"https://my.vault.sovcloud-api.fr/", nil, nil},
		"in recovery":           {"https://my.vault.sovcloud-api.fr/", nil, recovery},
		"in recovery, caller's": {"https://behind.a.proxy.example/", []policy.Policy{asks}, recovery},
		"after a challenge": {"https://my.vault.sovcloud-api.fr/", nil, func(n *network) {
			n.declines(unbindable, 1)
			got, err := n.scheme("https://other.example/.default") // which learns that the tenant binds no tokens
			require.NoError(n, err)
			require.Equal(n, "Bearer", got)
			n.asked = n.asked[:1]
			n.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: challenge, Times: 1})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			client := n.client(test.own...)
			want := []string{""}
			if test.stop == nil {
				n.declines(unbindable, 1)
			} else {
				_, _, err := send(t.Context(), client, http.MethodGet, test.url, "")
				require.NoError(t, err)
				test.stop(n)
				want = []string{"true", ""}
			}
			_, body, err := send(t.Context(), client, http.MethodGet, test.url, "")
			require.NoError(t, err)
			require.Equal(t, "Bearer ", body)
			require.Equal(t, want, n.asked)
			n.noRejections()
		})
	}
}
