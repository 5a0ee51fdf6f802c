// Package platform has the defaults of the system that it is built for: the key provider with the strongest keys, and
// the store that outlives a process.
package platform

import (
	"os"
	"strings"
)

// StoreVariable switches the store off for programs that name none, as it does for MSAL.
const StoreVariable = "MSAL_MI_DISABLE_PERSISTENT_CERT_CACHE"

// StoreIsSwitchedOff reports whether whoever runs the machine has done so: 1 or true, without case.
func StoreIsSwitchedOff() bool {
	value := strings.ToLower(os.Getenv(StoreVariable))
	return value == "1" || value == "true"
}
