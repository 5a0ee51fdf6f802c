package tpmstore_test

import (
	"fmt"
	"maps"
	"os"
	"testing"

	"github.com/azmtls/azmtls/tpmstore"
)

// The test program is also the other process of tests that need one: it then plays the role that its environment names.
func TestMain(m *testing.M) {
	role := os.Getenv(tpmstore.RoleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	roles := maps.Clone(tpmstore.Roles)
	roles["token"] = token
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}
