package azmtls

import "github.com/azmtls/azmtls/internal/stage"

// Stage is a stage on the way to a token: where an error came about, or what an [Event] is about. Spans are named
// after them.
type Stage string

const (
	// StageNone: the stage is not known.
	StageNone Stage = ""
	// StageInput is what the caller asked for, before anything was done about it.
	StageInput Stage = Stage(stage.Input)
	// StageMetadata is the request to IMDS for what this machine is.
	StageMetadata Stage = Stage(stage.Metadata)
	// StageKey is the key provider, and the key's signature of the certificate request.
	StageKey Stage = Stage(stage.Key)
	// StageAttestation is the attestation of the key.
	StageAttestation Stage = Stage(stage.Attestation)
	// StageIssue is the request to IMDS for a certificate, and the look at what it issued.
	StageIssue Stage = Stage(stage.Issue)
	// StageToken is the request to Entra for a token.
	StageToken Stage = Stage(stage.Token)
	// StageV1 is azidentity's credential, which serves a [ManagedIdentityCredential] where IMDS v2 does not.
	StageV1 Stage = Stage(stage.V1)
)

// String returns the name of the stage.
func (s Stage) String() string { return string(s) }
