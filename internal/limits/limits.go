// Package limits holds how long anything may take. Nothing waits for ever; what waits, waits for one of these.
package limits

import "time"

const (
	// Token is the whole way to a token: recovery, minting and Entra's own retries.
	Token = 5 * time.Minute
	// Mint is the whole way to a fresh binding: key, metadata, attestation, certificate, with the retries of IMDS.
	Mint = 4 * time.Minute
	// V2 is how long a call waits for IMDS v2 where IMDS v1 can serve it too.
	V2 = 10 * time.Second
	// V1 is how long a call then waits for IMDS v1.
	V1 = 30 * time.Second
	// Dial is how long it may take to reach IMDS, which is a hop away.
	Dial = time.Second
	// FirstAnswer is how long IMDS may take to answer for the first time. One that does not is not there.
	FirstAnswer = 4 * time.Second
	// Metadata is how long IMDS may take to say what the machine is, each time that it is asked.
	Metadata = 10 * time.Second
	// Identity is how long the first use of a stored binding waits for IMDS to say whose machine this is.
	Identity = time.Second
	// Entra is how long Entra may take to begin its answer, each time that it is asked.
	Entra = 15 * time.Second
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

// Issue is how long IMDS may take to issue a certificate, each time that it is asked; the last is of all that follow.
var Issue = [...]time.Duration{15 * time.Second, 30 * time.Second, time.Minute}
