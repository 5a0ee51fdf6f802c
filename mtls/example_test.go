package mtls_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/azmtls/azmtls/mtls"
)

// What Mint returns is kept; what it cannot return is an error for all who wait.
func ExampleCache() {
	var cache mtls.Cache
	_, err := cache.GetOrMint(context.Background(), mtls.Source{
		Alias: "system_assigned_managed_identity#att=0",
		Mint: func(context.Context, mtls.MintRequest) (*mtls.Binding, error) {
			return nil, errors.New("IMDS is not there")
		},
	})
	fmt.Println(err)
	// Output: IMDS is not there
}

// The strength of a key is what MinBindingStrength is compared with.
func ExampleKeyProvider() {
	var provider mtls.KeyProvider = mtls.SoftwareKeys{}
	key, err := provider.Key(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(key.Strength(), key.Strength() < mtls.StrengthTPM)
	// Output: software true
}
