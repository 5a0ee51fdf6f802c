package azmtls_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// claimsOf returns what is in a token.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, json.Unmarshal(payload, &claims))
	return claims
}

func TestTokenTypes(t *testing.T) {
	for _, tokenType := range []azmtls.TokenType{azmtls.TokenTypeAuto, azmtls.TokenTypeBearer, azmtls.TokenTypeMtlsPoP} {
		t.Run(tokenType.String(), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = tokenType })
			token, err := f.token(vault)
			require.NoError(t, err)
			claims := claimsOf(t, token.Token)
			require.Equal(t, "https://vault.azure.net", claims["aud"])
			if tokenType == azmtls.TokenTypeMtlsPoP {
				require.Equal(t, map[string]any{"x5t#S256": f.store.get(alias).Thumbprint()}, claims["cnf"])
			} else {
				require.NotContains(t, claims, "cnf", "a client that was not bound could not use a bound token")
			}
			require.InDelta(t, time.Hour.Seconds(), time.Until(token.ExpiresOn).Seconds(), 60)
			require.InDelta(t, time.Hour.Seconds()/2, time.Until(token.RefreshOn).Seconds(), 60)
			f.noRejections()
		})
	}
	require.Equal(t, "TokenType(9)", azmtls.TokenType(9).String())
}

func TestTokensAreCached(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	first, err := f.token(vault)
	require.NoError(t, err)
	bare, err := f.token("https://vault.azure.net")
	require.NoError(t, err)
	require.Equal(t, first, bare, "the bare resource is the same scope")
	require.Equal(t, 1, f.server.Counts().Token)

	other, err := f.token(storage)
	require.NoError(t, err)
	require.NotEqual(t, first, other)
	cae, err := f.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}, EnableCAE: true})
	require.NoError(t, err)
	require.Equal(t, []any{"cp1"}, claimsOf(t, cae.Token)["xms_cc"])
	require.Equal(t, 3, f.server.Counts().Token)
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Equal(t, 1, f.server.Counts().TokenConnections, "one connection serves all requests")
}

// Claims come from a challenge: the cached token is what was challenged.
func TestClaimsBypassTheCache(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	ask := func(claims string) azcore.AccessToken {
		token, err := f.cred.GetToken(
			t.Context(),
			policy.TokenRequestOptions{Scopes: []string{vault}, EnableCAE: true, Claims: claims},
		)
		require.NoError(t, err)
		return token
	}
	first := ask("")
	challenged := ask(`{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}`)
	require.NotEqual(t, first, challenged)
	require.Equal(t, []any{"cp1"}, claimsOf(t, challenged.Token)["xms_cc"], "the capability is merged into the claims")
	require.Equal(t, challenged, ask(""), "the new token takes the place of the challenged one")
	require.Equal(t, 2, f.server.Counts().Token)
	f.noRejections()
}

func TestTokensExpire(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	first, err := f.token(vault)
	require.NoError(t, err)

	f.clock.Advance(40 * time.Minute) // past RefreshOn: the old token is given out while a new one is fetched
	hold := f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
	for range 100 {
		token, err := f.token(vault)
		require.NoError(t, err)
		require.Equal(t, first, token)
	}
	require.Eventually(t, func() bool { return f.server.Counts().Token == 2 }, 10*time.Second, time.Millisecond)
	hold()
	require.NoError(t, f.cred.Close()) // ends the refresh that hangs
	f.cred = f.another(nil)
	_, err = f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 3, f.server.Counts().Token, "one refresh, however many asked")

	f.clock.Advance(34 * time.Minute)
	old, err := f.token(vault)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		token, err := f.token(vault)
		return err == nil && token.Token != old.Token
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, 4, f.server.Counts().Token)

	f.clock.Advance(59 * time.Minute) // too little is left for a request
	_, err = f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 5, f.server.Counts().Token)
}

// A refresh that fails costs nothing as long as the token is good, and is not repeated at every call.
func TestFailedRefreshKeepsTheToken(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	first, err := f.token(vault)
	require.NoError(t, err)
	f.server.Inject(
		imdstest.Fault{
			Endpoint: imdstest.Token,
			Do:       imdstest.EntraError{OAuth: "temporarily_unavailable", AADSTS: "AADSTS90033"},
		},
	)
	f.clock.Advance(34 * time.Minute)
	for range 50 {
		token, err := f.token(vault)
		require.NoError(t, err)
		require.Equal(t, first, token)
	}
	require.Eventually(t, func() bool { return f.server.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
	for range 50 {
		_, err := f.token(vault)
		require.NoError(t, err)
	}
	require.Equal(t, 1, f.server.Counts().Faults)
}

// Bound tokens die with their binding, also with that of another credential which shares it; bearer tokens do not
// depend on it.
func TestTokensAreDroppedWithTheirBinding(t *testing.T) {
	for tokenType, dropped := range map[azmtls.TokenType]bool{azmtls.TokenTypeMtlsPoP: true, azmtls.TokenTypeBearer: false} {
		f := newFixture(t, imdstest.Options{}, nil)
		cache := &mtls.Cache{Clock: f.clock.Clock()}
		share := func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Cache, o.TokenType = cache, tokenType }
		one, two := f.another(share), f.another(share)
		get := func(c *azmtls.ImdsV2MtlsCredential, scope string) azcore.AccessToken {
			token, err := c.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
			require.NoError(t, err)
			return token
		}
		before := get(one, vault)
		get(two, storage)
		require.Equal(t, 1, f.server.Counts().Issued, "one binding for both")
		require.NoError(t, two.Close())
		f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
		get(two, "https://graph.microsoft.com/.default")
		require.Equal(t, 2, f.server.Counts().Issued)
		require.Equal(t, dropped, before != get(one, vault), "%s", tokenType)
		require.Equal(t, 2, f.server.Counts().Issued)
		require.Equal(t, 1, f.store.evicted())
	}
}

// A certificate with less than a day left serves as long as it lasts, from memory alone.
func TestShortLivedCertificate(t *testing.T) {
	f := newFixture(t, imdstest.Options{CertificateLifetime: 20 * time.Hour}, nil)
	for _, scope := range []string{vault, storage} {
		_, err := f.token(scope)
		require.NoError(t, err)
	}
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Equal(t, 2, f.server.Counts().TokenIssued)
	require.Nil(t, f.store.get(alias))

	f.clock.Advance(20*time.Hour - 4*time.Minute) // good for tokens until 5 minutes before its end
	_, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 2, f.server.Counts().Issued)
}

func TestSharedCacheIsTheDefault(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	shared := func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Cache = nil }
	for range 2 {
		_, err := f.another(shared).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
		require.NoError(t, err)
	}
	require.Equal(t, 1, f.server.Counts().Issued)
}

// 2,000 callers meet a cold credential, and later a refused binding: each time one of each request is enough.
func TestStampede(t *testing.T) {
	const callers = 2000
	f := newFixture(t, imdstest.Options{}, nil)
	all := func(scope string) {
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range callers {
			wg.Go(func() {
				<-start
				_, err := f.token(scope)
				assert.NoError(t, err)
			})
		}
		close(start)
		wg.Wait()
	}
	all(vault)
	counts := f.server.Counts()
	require.Equal(t, 1, counts.Metadata)
	require.Equal(t, 1, counts.Issue)
	require.Equal(t, 1, counts.Token)

	require.NoError(t, f.cred.Close())
	f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
	all(storage)
	counts = f.server.Counts()
	require.Equal(t, 2, counts.Issued)
	require.Equal(t, 2, counts.TokenIssued)
	require.Equal(t, 1, f.store.evicted())
}

// The same with a scope for each caller, so that they fail together and not as one.
func TestStampedeOfScopes(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	planted := f.plant()
	f.server.Refuse(planted.Thumbprint(), 48)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			_, err := f.token("https://resource-" + string(rune('a'+i%26)) + strings.Repeat("x", i/26))
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Equal(t, 1, f.store.evicted())
}

// One caller's cancellation does not fail the others: the work goes on for them.
func TestCancellationIsPersonal(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	gate := make(chan struct{})
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.Edit(func(map[string]any) { <-gate })},
	)
	impatient, giveUp := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() {
		_, err := f.cred.GetToken(impatient, policy.TokenRequestOptions{Scopes: []string{vault}})
		errs <- err
	}()
	require.Eventually(t, func() bool { return f.server.Counts().Issue == 1 }, 10*time.Second, time.Millisecond)
	giveUp()
	require.ErrorIs(t, <-errs, context.Canceled)
	patient := make(chan error)
	go func() {
		_, err := f.token(vault)
		patient <- err
	}()
	close(gate)
	require.NoError(t, <-patient)
	require.Equal(t, 1, f.server.Counts().Issue)
}

func TestClosedCredentialStillWorks(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	require.NoError(t, f.cred.Close())
	require.NoError(t, f.cred.Close())
	_, err := f.token(vault)
	require.NoError(t, err)
}
