package storetest_test

import (
	"testing"

	"github.com/azmtls/azmtls/imdstest/storetest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

// A test of a store's own package. Open is called anew for each process that the suite plays.
func ExampleRun() {
	_ = func(t *testing.T) {
		folder := t.TempDir()
		storetest.Run(t, storetest.Subject{
			Open: func(*testing.T) mtls.Store { return tpmstore.Store{Folder: folder} },
			Key: func(t *testing.T) mtls.Key {
				key, err := tpmstore.Keys{Folder: folder}.Key(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return key
			},
		})
	}
}
