package platform

import (
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

// Keys returns the key provider.
func Keys() mtls.KeyProvider { return tpmstore.Keys{} }

// Store returns the store.
func Store() mtls.Store { return tpmstore.Store{} }
