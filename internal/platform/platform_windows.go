package platform

import (
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/winstore"
)

// Keys returns the key provider.
func Keys() mtls.KeyProvider { return winstore.Keys{} }

// Store returns the store.
func Store() mtls.Store { return winstore.Store{} }
