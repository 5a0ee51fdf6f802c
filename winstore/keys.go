package winstore

import "github.com/azmtls/azmtls/mtls"

// Keys is an [mtls.KeyProvider] for keys of CNG (Cryptography API: Next Generation). It gives the strongest that the
// machine has:
//
//   - KeyGuardRSAKey, isolated by virtualization-based security, new at every boot
//   - HardwareRSAKey in the TPM ("Microsoft Platform Crypto Provider")
//   - SoftwareRSAKey in "Microsoft Software Key Storage Provider"
//   - a key in the memory of this process, as [mtls.SoftwareKeys] has it
//
// A key that is there is used on if it can sign; a dead one is made anew under its name. When that is the KeyGuard key,
// which MSAL.NET uses too, the certificates of managed identities that were issued for the old one are deleted from
// CurrentUser\My: their key is gone. Keys that Windows holds implement [io.Closer]; nobody has to close them, since
// their handle goes when the garbage collector finds them unused.
type Keys struct{}

var _ interface {
	mtls.KeyProvider
	mtls.Chooser
} = Keys{}
