package tpmstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

// What is stored for an identity can be removed by its alias: the identity's id as configured, or
// system_assigned_managed_identity, and whether it is attested.
func ExampleStore() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	store, alias := tpmstore.Store{Folder: folder}, "system_assigned_managed_identity#att=0"
	if err := store.DeleteAll(context.Background(), alias); err != nil {
		fmt.Println(err)
	}
	_, err = store.Load(context.Background(), alias)
	fmt.Println("nothing is stored:", errors.Is(err, mtls.ErrNotFound))
	// Output: nothing is stored: true
}
