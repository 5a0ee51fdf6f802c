//go:build !windows && !linux

package platform

import "github.com/azmtls/azmtls/mtls"

// Keys returns the key provider.
func Keys() mtls.KeyProvider { return mtls.SoftwareKeys{} }

// Store returns the store.
func Store() mtls.Store { return mtls.NoStore{} }
