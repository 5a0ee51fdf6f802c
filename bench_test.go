package azmtls_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// onRealClock returns options for a simulator that tell the time by the real clock, whose cost is part of what is
// measured, and have their key at hand.
func onRealClock(t testing.TB, server *imdstest.Server) *azmtls.ImdsV2MtlsCredentialOptions {
	t.Helper()
	testKey()
	return &azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(),
		MTLSTransport: server.MTLSTransport(),
		KeyProvider:   &keys{},
		Store:         mtls.NoStore{},
		Cache:         &mtls.Cache{},
	}
}

// settle waits until no more goroutines run than there were: what was begun in the background has ended.
func settle(b *testing.B, goroutines int) {
	b.Helper()
	for range 10_000 {
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(time.Millisecond)
	}
	require.FailNow(b, "what was begun in the background does not end")
}
