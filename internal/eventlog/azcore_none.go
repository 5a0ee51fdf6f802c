//go:build azmtls_nolinkname

package eventlog

import "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"

func azcoreShould(log.Event) bool { return false }

func azcoreWrite(log.Event, string) {}
