package azmtls

import (
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/winstore"
)

func platformKeys() mtls.KeyProvider { return winstore.Keys{} }
func platformStore() mtls.Store      { return winstore.Store{} }
