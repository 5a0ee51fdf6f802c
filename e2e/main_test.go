package e2e

import (
	"os"
	"testing"

	"github.com/azmtls/azmtls/internal/secrets"
)

// hunt searches the log that the tests write.
var hunt secrets.Search

func TestMain(m *testing.M) { os.Exit(hunt.Run(m, "e2e")) }
