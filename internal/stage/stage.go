// Package stage names the stages on the way to a token: what is waited for, and where it failed.
package stage

import "errors"

// Stage is one of them. The zero value is none.
type Stage string

const (
	// Input is what the caller asked for, before anything is done about it.
	Input Stage = "input"
	// Metadata is IMDS's word on what this machine is.
	Metadata Stage = "metadata"
	// Key is the key provider, and the key's signature of the certificate request.
	Key Stage = "key"
	// Attestation is the attestation of the key.
	Attestation Stage = "attestation"
	// Issue is the issue of a certificate by IMDS.
	Issue Stage = "issue"
	// Token is the token request to Entra.
	Token Stage = "token"
	// V1 is azidentity's credential, where IMDS v2 does not serve.
	V1 Stage = "v1"
)

var waits = map[Stage]string{
	Metadata:    "IMDS to say what this machine is",
	Key:         "the key provider",
	Attestation: "the attestation of the key",
	Issue:       "IMDS to issue a certificate",
	Token:       "Entra to answer",
	V1:          "azidentity's ManagedIdentityCredential",
}

// Wait says what is waited for in the stage.
func (s Stage) Wait() string {
	if wait, ok := waits[s]; ok {
		return wait
	}
	return string(s)
}

// At marks an error with the stage in which it came about, unless it is marked already. Nil stays nil.
func At(s Stage, err error) error {
	if err == nil || Of(err) != "" {
		return err
	}
	return at{err, s}
}

// Of returns the stage that an error is marked with.
func Of(err error) Stage {
	marked, _ := errors.AsType[at](err)
	return marked.stage
}

type at struct {
	error
	stage Stage
}

func (e at) Unwrap() error { return e.error }
