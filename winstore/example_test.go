package winstore_test

import (
	"context"
	"fmt"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/winstore"
)

// Why a machine has no stronger key. No key is made to find that out.
func ExampleKeys_Choose() {
	strength, passedOver, err := winstore.Keys{}.Choose(context.Background())
	for _, p := range passedOver {
		fmt.Printf("no %s key from %s: %v\n", p.Strength, p.Provider, p.Err)
	}
	if err == nil {
		fmt.Println("certificates would be for a key of strength", strength)
	}
}

// Certificates for KeyGuard keys only, attested.
func ExampleKeyGuardAttestation() {
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		Attestation:        &winstore.KeyGuardAttestation{},
		MinBindingStrength: mtls.StrengthKeyGuard,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cred.Close()
}
