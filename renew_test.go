package azmtls_test

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// A renewal takes effect with the next token. What is bound to the old certificate serves on, over its own connections.
func TestRenew(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	token, old := f.boundToken(vault)
	scheme, err := f.scheme(vault)
	require.NoError(t, err)
	require.Equal(t, "mtls_pop", scheme)

	require.NoError(t, f.cred.Renew(t.Context()))
	require.Equal(t, 2, f.server.Counts().Issued)
	require.Equal(t, 1, f.server.Counts().IssueBypass)
	again, same := f.boundToken(vault)
	require.Equal(t, token, again)
	require.Same(t, old, same)
	scheme, err = f.scheme(vault)
	require.NoError(t, err)
	require.Equal(t, "mtls_pop", scheme, "the resource finds the token's certificate")
	_, now := f.boundToken(storage)
	require.NotEqual(t, old.Thumbprint(), now.Thumbprint())
	require.Equal(t, now.Thumbprint(), f.store.get(alias).Thumbprint())
	require.Zero(t, f.store.evicted())
	f.noRejections()
}

// One that fails changes nothing, and says why; one that comes too early says when.
func TestRenewThatFails(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, old := f.boundToken(vault)
	remove := f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 400}})
	require.ErrorContains(t, f.cred.Renew(t.Context()), "does not certify the key")
	remove()
	require.ErrorContains(t, f.cred.Renew(t.Context()), "the next attempt is at ")
	_, now := f.boundToken(storage)
	require.Same(t, old, now)
	f.clock.Advance(1100 * time.Millisecond)
	require.NoError(t, f.cred.Renew(t.Context()))

	var none *azmtls.ImdsV2MtlsCredential
	var failure *azmtls.AuthenticationError
	require.ErrorAs(t, none.Renew(t.Context()), &failure)
	require.Equal(t, azmtls.StageInput, failure.Stage)
	//lint:ignore SA1012 that is the mistake
	require.ErrorAs(t, f.cred.Renew(nil), &failure)
	require.Zero(t, none.Status())
}

// Where there is no IMDS v2 it says so.
func TestRenewWithoutIMDS(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: 404}})
	require.ErrorContains(t, f.cred.Renew(t.Context()), "has no version 2")
}
