package azmtls_test

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
)

// managedWith provokes a mistake of a ManagedIdentityCredential.
func managedWith(name string, edit func(*azmtls.ManagedIdentityCredentialOptions), faults ...imdstest.Fault) mistake {
	return mistake{name, func(t *testing.T) error {
		m := newManaged(t, imdstest.Options{}, edit)
		for _, fault := range faults {
			m.server.Inject(fault)
		}
		_, err := m.token(newScope())
		return err
	}}
}

func fallbackMistakes() []mistake {
	wrongID := func(o *azmtls.ManagedIdentityCredentialOptions) { o.ID = azidentity.ClientID(anotherID) }
	return []mistake{
		managedWith("no IMDS v2, and the machine has no identity", nil, noV2, noIdentity),
		managedWith("no IMDS v2, and ID is not assigned", wrongID, noV2, noIdentity),
		managedWith("Entra refuses, and IMDS v1 is ill", nil, entraFails,
			imdstest.Fault{Endpoint: imdstest.V1, Do: imdstest.Respond{Status: 500, Body: `{"error":"unknown"}`}}),
		{"a bound token, where IMDS v1 serves", func(t *testing.T) error {
			m := newManaged(t, imdstest.Options{}, nil)
			m.server.Inject(noV2)
			_, _, err := m.cred.GetBoundToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{newScope()}})
			return err
		}},
		{"bound tokens demanded, where the environment names another source", func(t *testing.T) error {
			t.Setenv("MSI_ENDPOINT", "http://127.0.0.1:1")
			m := newManaged(t, imdstest.Options{}, func(o *azmtls.ManagedIdentityCredentialOptions) {
				o.TokenType = azmtls.TokenTypeMtlsPoP
			})
			_, err := m.token(newScope())
			return err
		}},
	}
}
