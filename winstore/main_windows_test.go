package winstore_test

import (
	"fmt"
	"maps"
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
	roles := maps.Clone(winstore.Roles)
	roles["token"] = token
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}
