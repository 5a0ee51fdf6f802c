package azmtls_test

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// running reports whether a function is being executed.
func running(function string) bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), function)
}

// Keys that are made while IMDS is asked are checked as all are: one that is too weak ends the mint.
func TestKeyThatIsMadeAheadAndTooWeak(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.KeyProvider, o.MinBindingStrength = mtls.SoftwareKeys{}, mtls.StrengthTPM
	})
	_, err := f.token(vault)
	var failure *azmtls.AuthenticationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, azmtls.StageKey, failure.Stage)
	require.ErrorContains(t, err, "has strength software where MinBindingStrength demands TPM")
	require.Zero(t, f.server.Counts().Issue)
}

// A key to spare is made after a mint, and not before the token is there, whose request it would slow down: not for a
// token without a mint, for keys of another provider, or after Close. The next mint takes it.
func TestSpareKey(t *testing.T) {
	making := func() bool { return running("(*keySource).prepare") }
	made := func() bool { return !making() }
	require.Eventually(t, made, time.Minute, time.Millisecond, "that of another test")
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.KeyProvider = mtls.SoftwareKeys{} },
	)
	var early, waited atomic.Bool
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtAnswer, Do: imdstest.Edit(func(map[string]any) {
			early.Store(early.Load() || making())
		})},
	)
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Metadata, At: imdstest.AtAnswer, Do: imdstest.Edit(func(map[string]any) {
			waited.Store(running("rsa.GenerateKey"))
		})},
	)

	_, err := f.token(vault)
	require.NoError(t, err)
	require.True(t, waited.Load())
	require.True(t, making())
	require.Eventually(t, made, time.Minute, time.Millisecond)
	_, err = f.token(storage)
	require.NoError(t, err)
	require.False(t, making(), "there was no mint")

	first := f.store.get(alias)
	f.server.Refuse(first.Thumbprint(), 48)
	f.cred.Client(vault).CloseIdleConnections()
	_, err = f.asks(vault)
	require.NoError(t, err)
	require.NotEqual(t, first, f.store.get(alias))
	require.False(t, waited.Load(), "it took the spare one")
	require.True(t, making(), "another one")
	require.Eventually(t, made, time.Minute, time.Millisecond)
	require.False(t, early.Load(), "while Entra was asked")

	require.NoError(t, f.cred.Close())
	f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
	f.clock.Advance(time.Hour)
	_, err = f.asks(vault)
	require.NoError(t, err)
	require.False(t, making(), "it is closed")

	f.cred = f.another(nil)
	_, err = f.token(vault)
	require.NoError(t, err)
	require.False(t, making(), "keys of others are not made ahead")
}
