package mtls

import "context"

// AttestationRequest is what an [AttestationProvider] needs to vouch for a key.
type AttestationRequest struct {
	// Endpoint is the attestation service that IMDS named for this machine.
	Endpoint string
	// ClientID is the canonical client id of the identity that the binding is for.
	ClientID string
	// Key is the key to be attested.
	Key Key
	// Fresh asks for a JWT that was not given out before: the last one was refused.
	Fresh bool
}

// AttestationProvider obtains the proof that a key is held by the hardware it claims: a JWT of the attestation
// service, which goes to IMDS with the certificate request. An error or a blank JWT ends the mint; it never falls
// back to a binding without attestation. Implementations must be safe for concurrent use.
type AttestationProvider interface {
	Attest(ctx context.Context, request AttestationRequest) (jwt string, err error)
}
