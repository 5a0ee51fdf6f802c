//go:build !azmtls_nolinkname

package eventlog

import (
	_ "unsafe" // for go:linkname

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
)

// azcore exports the listening half of its log, not the writing half, which lives in a package that only Microsoft's
// modules may import. Linking to its two functions is the one way to reach the listener that the user has set; should
// they ever move, the link step fails and says so. The build tag azmtls_nolinkname does without them, and without
// these lines of the log.

//go:linkname azcoreShould github.com/Azure/azure-sdk-for-go/sdk/internal/log.Should
func azcoreShould(event log.Event) bool

//go:linkname azcoreWrite github.com/Azure/azure-sdk-for-go/sdk/internal/log.Write
func azcoreWrite(event log.Event, message string)
