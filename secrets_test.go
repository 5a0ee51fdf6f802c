package azmtls_test

import (
	"os"
	"testing"

	"github.com/azmtls/azmtls/internal/secrets"
)

// hunt searches all that this package's tests emit: the log, and of every fixture the events, spans, errors and Status.
var hunt secrets.Search

// plantedClaim is in the claims that tests ask for tokens with.
const plantedClaim = "a-claim-that-nobody-may-read"

func TestMain(m *testing.M) {
	hunt.Plant(tenant, clientID, plantedClaim, assigned, "secret-attestation-jwt", "secret-subscription")
	os.Exit(hunt.Run(m, "azmtls"))
}
