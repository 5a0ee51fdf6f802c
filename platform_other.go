//go:build !windows && !linux

package azmtls

import "github.com/azmtls/azmtls/mtls"

func platformKeys() mtls.KeyProvider { return mtls.SoftwareKeys{} }
func platformStore() mtls.Store      { return mtls.NoStore{} }
