package winstore

// KeyGuardAttestation is an [mtls.AttestationProvider] that has Microsoft's AttestationClientLib.dll vouch for KeyGuard
// keys. The library comes with the NuGet package Microsoft.Azure.Security.KeyGuardAttestation. It must be installed
// beside the program's executable or in System32; the working directory and the PATH are not searched. Attestation
// tokens are kept until shortly before they expire, so use one KeyGuardAttestation for all credentials. It must not be
// copied after first use.
type KeyGuardAttestation struct {
	// Library is the absolute path of AttestationClientLib.dll, for one that is installed elsewhere.
	Library string

	attestor
}
