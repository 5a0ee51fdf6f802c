// Package limits holds how long anything may take. Nothing waits for ever; what waits, waits for one of these.
package limits

import "time"

const (
	// Token is the whole way to a token: recovery, minting and Entra's own retries.
	Token = 5 * time.Minute
	// Mint is the whole way to a fresh binding: key, metadata, attestation, certificate, with the retries of IMDS.
	Mint = 4 * time.Minute
	// Key is how long a private key may take for one signature: a TPM takes seconds when it is busy.
	Key = time.Minute
	// Attestation is how long the attestation of a key may take.
	Attestation = time.Minute
	// Store is how long a call waits for the store. A store is a convenience: a token does not wait for it longer.
	Store = 2 * time.Second
	// Removal is how long the removal of a refused binding may take: a look into the store, a signature, a delete.
	Removal = 2*Store + Key
	// BodyRead is how long a Read of the caller's body that is under way may take to return, once its attempt is over.
	BodyRead = 100 * time.Millisecond
	// LastWords is how long a write that failed waits for what the peer said before it ended the connection to be read.
	LastWords = 50 * time.Millisecond
)
