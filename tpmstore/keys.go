package tpmstore

// Keys is an [mtls.KeyProvider] for keys in a TPM 2.0 (Trusted Launch and confidential VMs have a virtual one). It
// gives the strongest that the machine has:
//
//   - an RSA key of 2048 bits that the TPM made and that it alone can use, without demands on PCRs
//   - a key in the memory of this process, as [mtls.SoftwareKeys] has it
//
// The key lies below the storage root key: the one at 0x81000001 where the TPM has that, else the one that the TCG's
// template makes. Nothing is written into the TPM. What is kept is the key as the TPM wrapped it, in the file key.pem
// of the folder azmtls, in the "TSS2 PRIVATE KEY" form, which OpenSSL's tpm2 provider reads too. A key that can sign is
// used on; one that the TPM does not know any more is made anew. One that cannot be kept, since the folder cannot be
// used, lives as long as the process.
//
// Keys is an [mtls.Chooser] too.
type Keys struct {
	// Device is the TPM: a character device, or a unix socket on which a TPM's commands are spoken. Empty is /dev/tpmrm0,
	// the kernel's resource manager.
	Device string
	// Folder is where the folder azmtls lies or is made. Empty is the first of $STATE_DIRECTORY (its first entry),
	// $XDG_STATE_HOME and ~/.local/state.
	Folder string
}
