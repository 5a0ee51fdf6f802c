package tpmstore_test

import (
	"context"
	"fmt"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

// On Linux, nil options have these Keys and this Store. Who wants the folder elsewhere, and no weaker key, says so.
func Example() {
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		KeyProvider:        tpmstore.Keys{Folder: "/var/lib/app"},
		Store:              tpmstore.Store{Folder: "/var/lib/app"},
		MinBindingStrength: mtls.StrengthTPM,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cred.Close()
}

// Why a machine has no key in its TPM. Nothing is kept to find that out.
func ExampleKeys_Choose() {
	strength, passedOver, err := tpmstore.Keys{}.Choose(context.Background())
	for _, p := range passedOver {
		fmt.Printf("no %s key from %s: %v\n", p.Strength, p.Provider, p.Err)
	}
	if err == nil {
		fmt.Println("certificates would be for a key of strength", strength)
	}
}
