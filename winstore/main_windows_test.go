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
		winstore.Hunt.Plant("d3adb33f-c0de-4ad0-8c0d-3adb33fc0de0", "72f988bf-86f1-41af-91ab-2d7cd011db47")
		os.Exit(winstore.Hunt.Run(m, "winstore"))
	}
	roles := maps.Clone(winstore.Roles)
	roles["token"] = token
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}
