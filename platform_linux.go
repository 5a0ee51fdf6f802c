package azmtls

import (
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

func platformKeys() mtls.KeyProvider { return tpmstore.Keys{} }
func platformStore() mtls.Store      { return tpmstore.Store{} }
