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
		tpmstore.Hunt.Plant("d3adb33f-c0de-4ad0-8c0d-3adb33fc0de0", "72f988bf-86f1-41af-91ab-2d7cd011db47")
		os.Exit(tpmstore.Hunt.Run(m, "tpmstore"))
	}
	roles := maps.Clone(tpmstore.Roles)
	roles["token"] = token
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}
