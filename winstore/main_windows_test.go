package winstore_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/azmtls/azmtls/winstore"
)

// The test program is also the other process of tests that need one: it then plays the role that its environment names.
func TestMain(m *testing.M) {
	role := os.Getenv(winstore.RoleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

// roles are what another process does in a test.
var roles = winstore.Roles
