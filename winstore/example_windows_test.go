package winstore_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/winstore"
)

// Nil options have this Store on Windows. What is stored for an identity can be removed by its alias: the identity's id
// as configured, or system_assigned_managed_identity, and whether it is attested.
func ExampleStore() {
	store, alias := winstore.Store{}, "11111111-2222-3333-4444-555555555555#att=0"
	if err := store.DeleteAll(context.Background(), alias); err != nil {
		fmt.Println(err)
	}
	_, err := store.Load(context.Background(), alias)
	fmt.Println("nothing is stored:", errors.Is(err, mtls.ErrNotFound))
	// Output: nothing is stored: true
}
