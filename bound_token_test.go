package azmtls_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// boundToken asks for a token with its binding, and checks that they belong together.
func (f *fixture) boundToken(scope string) (token string, b *mtls.Binding) {
	f.Helper()
	got, b, err := f.cred.GetBoundToken(f.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
	require.NoError(f, err)
	require.Equal(f, map[string]any{"x5t#S256": b.Thumbprint()}, claimsOf(f, got.Token)["cnf"])
	return got.Token, b
}

// A bound token comes with the binding that it is bound to, whatever the type of the credential's other tokens, which
// it does not get in the way of: a resource takes it over a connection with that binding.
func TestBoundToken(t *testing.T) {
	for _, tokenType := range []azmtls.TokenType{azmtls.TokenTypeAuto, azmtls.TokenTypeBearer, azmtls.TokenTypeMtlsPoP} {
		t.Run(tokenType.String(), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{ResourceHandler: echo}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.TokenType = tokenType
			})
			token, b := f.boundToken(vault)
			again, same := f.boundToken(vault)
			require.Equal(t, token, again, "from the cache")
			require.Same(t, b, same)
			require.Equal(t, 1, f.server.Counts().Token)

			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.ResourceURL(), nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "mtls_pop "+token)
			transport := mtls.NewTransport(f.server.MTLSTransport(), b)
			defer transport.CloseIdleConnections()
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)

			other, err := f.token(vault)
			require.NoError(t, err)
			require.Equal(t, tokenType == azmtls.TokenTypeMtlsPoP, other.Token == token, "one cache for both")
			f.noRejections()
		})
	}
}

// A binding that was refused is healed from, and takes its tokens along, though nobody asked Entra for them.
func TestBoundTokenHeals(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, old := f.boundToken(vault)
	require.NoError(t, f.cred.Close())
	f.server.Refuse(old.Thumbprint(), 48)
	_, healed := f.boundToken(storage)
	require.NotEqual(t, old.Thumbprint(), healed.Thumbprint())
	require.True(t, old.Evicted())
	_, now := f.boundToken(vault)
	require.Same(t, healed, now)
	require.Equal(t, 2, f.server.Counts().Issued)
}

// A token serves on after a renewal, with the binding that it is bound to: not with the one in use.
func TestBoundTokenOutlivesRenewal(t *testing.T) {
	f := newFixture(t, imdstest.Options{CertificateLifetime: 3 * time.Hour, TokenLifetime: 3 * time.Hour}, nil)
	token, old := f.boundToken(vault)
	f.clock.Advance(110 * time.Minute)
	require.Eventually(t, func() bool {
		fresh := policy.TokenRequestOptions{Scopes: []string{storage}, Claims: `{"a":{}}`}
		_, now, err := f.cred.GetBoundToken(t.Context(), fresh)
		require.NoError(t, err)
		return now != old
	}, 10*time.Second, time.Millisecond)
	again, same := f.boundToken(vault)
	require.Equal(t, token, again)
	require.Same(t, old, same)
	require.Eventually(t, func() bool { // its refresh is bound to the new one
		_, now := f.boundToken(vault)
		return now != old
	}, 10*time.Second, time.Millisecond)
	require.False(t, old.Evicted())
}

// Where Entra binds no tokens there is an error, no bearer token: neither the own request's nor that of a bound
// client in Auto.
func TestBoundTokenIsNotDowngraded(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"}, Times: 1,
	})
	scheme, err := f.scheme(vault)
	require.NoError(t, err)
	require.Equal(t, "Bearer", scheme)
	f.boundToken(vault) // what Auto remembers of the resource is not for who demands it

	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"},
	})
	before := f.server.Counts().Token
	token, b, err := f.cred.GetBoundToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{storage}})
	require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
	require.ErrorAs(t, err, new(*azmtls.AuthenticationError))
	require.Empty(t, token)
	require.Nil(t, b)
	require.Equal(t, before+1, f.server.Counts().Token, "bearer is not tried")
}

// Whoever uses a bound token by other means than ours says that a peer refused its certificate: that binding is
// evicted, within the budget, whose second unit comes after a second.
func TestRefusalOfABoundToken(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	token, first := f.boundToken(vault)
	refusal := &mtls.Refusal{Binding: first, Host: "grpc.example:443", Err: errors.New("it is refused")}
	require.True(t, f.cred.RemoveBadCert(t.Context(), refusal))
	require.True(t, first.Evicted())
	require.Nil(t, f.store.get(alias))
	again, second := f.boundToken(vault)
	require.NotEqual(t, first.Thumbprint(), second.Thumbprint())
	require.NotEqual(t, token, again)
	require.Equal(t, 2, f.server.Counts().Issued)

	require.True(t, f.cred.RemoveBadCert(t.Context(), refusal), "it is gone")
	require.False(t, second.Evicted(), "and its successor stays")
	require.False(t, f.cred.RemoveBadCert(t.Context(), &mtls.Refusal{Binding: second}), "the budget is spent")
	require.False(t, second.Evicted())
	f.clock.Advance(2 * time.Second)
	require.True(t, f.cred.RemoveBadCert(t.Context(), &mtls.Refusal{Binding: second}))
	_, third := f.boundToken(vault)
	require.Equal(t, 3, f.server.Counts().Issued)

	require.False(t, f.cred.RemoveBadCert(t.Context(), nil))
	require.False(t, f.cred.RemoveBadCert(t.Context(), &mtls.Refusal{}))
	var nobody context.Context
	require.False(t, f.cred.RemoveBadCert(nobody, &mtls.Refusal{Binding: third}))
	require.False(t, (*azmtls.ManagedIdentityCredential)(nil).RemoveBadCert(t.Context(), refusal))
	require.False(t, third.Evicted())
}

// A binding that is not the credential's moves nothing.
func TestRefusalOfAStrangersBinding(t *testing.T) {
	f, other := newFixture(t, imdstest.Options{}, nil), newFixture(t, imdstest.Options{}, nil)
	_, own := f.boundToken(vault)
	_, strange := other.boundToken(vault)
	require.True(t, f.cred.RemoveBadCert(t.Context(), &mtls.Refusal{Binding: strange, Host: "h"}), "it is not in use here")
	require.False(t, own.Evicted())
	require.NotNil(t, f.store.get(alias))
	_, now := f.boundToken(vault)
	require.Same(t, own, now)
	require.Equal(t, 1, f.server.Counts().Issued)
}
