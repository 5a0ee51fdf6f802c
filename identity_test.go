package azmtls_test

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

const anotherID = "22222222-3333-4444-5555-666666666666"

// whose returns the client id that a token is for.
func whose(t testing.TB, token string) string {
	claims := jwt.MapClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(token, claims)
	require.NoError(t, err)
	id, _ := claims["appid"].(string)
	return id
}

// A disk that was cloned brings along the binding of another machine: it is not used, and not touched either. One of
// our own is used without a mint; the metadata is asked once.
func TestStoredBindingOfAnotherMachine(t *testing.T) {
	for name, edit := range map[string]func(*mtls.Binding){
		"our own":        nil,
		"another client": func(b *mtls.Binding) { b.ClientID = anotherID },
		"another tenant": func(b *mtls.Binding) { b.Endpoint = b.Endpoint[:len(b.Endpoint)-1] + "0" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			planted := f.plant()
			if edit != nil {
				edit(planted)
			}
			for _, scope := range []string{vault, storage} {
				token, err := f.token(scope)
				require.NoError(t, err)
				require.Equal(t, clientID, whose(t, token.Token))
			}
			counts := f.server.Counts()
			require.Zero(t, f.store.evicted())
			if edit == nil {
				require.Zero(t, counts.Issue)
				require.Equal(t, 1, counts.Metadata)
				return
			}
			require.Equal(t, 1, counts.Issued)
			require.Equal(t, 2, counts.TokenIssued, "nothing was asked with the other's binding")
			require.NotEqual(t, planted.Thumbprint(), f.store.get(alias).Thumbprint())
		})
	}
}

// Where IMDS does not say in time whose machine this is, the binding serves, after a second at most, and is checked
// later: by a call, in the background, once in a minute. If it turns out to be another's, it goes, and so does every
// token that was obtained with it.
func TestBindingIsCheckedLater(t *testing.T) {
	for name, others := range map[string]bool{"our own": false, "another's": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			planted := f.plant()
			f.clock.Manual()
			remove := f.server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Hang{}})
			first := f.get(t.Context(), vault)
			require.Eventually(t, func() bool { return f.clock.Waiting() > 0 && f.server.Counts().Faults == 1 },
				10*time.Second, time.Millisecond)
			f.clock.Advance(time.Second)
			require.NoError(t, <-first)
			require.Zero(t, f.server.Counts().Issue)
			bearer, err := f.token(vault)
			require.NoError(t, err)

			remove()
			if others {
				f.server.Recreate(anotherID)
				f.server.Recreate(anotherID) // twice is once
			}
			asked := f.server.Counts().Metadata
			f.clock.Advance(time.Minute)
			_, err = f.asks(storage)
			require.NoError(t, err)
			require.Eventually(t, func() bool { return f.server.Counts().Metadata > asked }, 10*time.Second, time.Millisecond)
			if !others {
				landed(t, f.clock)
				for range 5 {
					f.clock.Advance(10 * time.Minute)
					_, err := f.asks("https://graph.microsoft.com")
					require.NoError(t, err)
				}
				require.Equal(t, asked+1, f.server.Counts().Metadata, "it is known by now")
				require.Zero(t, f.store.evicted())
				return
			}
			require.Eventually(t, func() bool { return f.store.evicted() == 1 }, 10*time.Second, time.Millisecond)
			token, err := f.token(vault)
			require.NoError(t, err)
			require.NotEqual(t, bearer.Token, token.Token)
			require.Equal(t, anotherID, whose(t, token.Token))
			require.NotEqual(t, planted.Thumbprint(), f.store.get(alias).Thumbprint())
		})
	}
}

// An identity that was deleted and made anew is found out by Entra's word, within the call that meets it, and every
// token of the old one goes: those that Entra would not have been asked for too.
func TestIdentityMadeAnew(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	old, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, clientID, whose(t, old.Token))
	f.server.Recreate(anotherID)
	token, err := f.token(storage)
	require.NoError(t, err)
	require.Equal(t, anotherID, whose(t, token.Token))
	require.Equal(t, 1, f.store.evicted())
	require.Equal(t, 2, f.server.Counts().Issued)

	again, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, anotherID, whose(t, again.Token), "the bearer token of the old identity is gone")
	require.Equal(t, 2, f.server.Counts().Issued)
}

// Many who meet it at once share the question, the eviction and the mint.
func TestManyMeetTheIdentityMadeAnew(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, err := f.token(vault)
	require.NoError(t, err)
	f.server.Recreate(anotherID)
	require.Zero(t, burst(50, func(int) error {
		_, err := f.asks(storage)
		return err
	}))
	require.Equal(t, 1, f.store.evicted())
	require.Equal(t, 2, f.server.Counts().Issued)
	require.LessOrEqual(t, f.server.Counts().Metadata, 3)
}

// Entra's word alone is no refusal: where the metadata names the identity all the same, the error is an ordinary one,
// and the metadata is asked once in five minutes.
func TestUnknownIdentityThatIsOurs(t *testing.T) {
	for _, word := range []imdstest.EntraError{
		{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"},
		{OAuth: "invalid_client", AADSTS: "AADSTS700016"},
		{OAuth: "invalid_request", AADSTS: "AADSTS7000229"},
		{OAuth: "unauthorized_client", AADSTS: "AADSTS50105"},
	} {
		t.Run(word.OAuth+" "+word.AADSTS, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			_, err := f.token(vault)
			require.NoError(t, err)
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: word})
			fail := func() {
				_, err = f.asks(storage)
				var failed *azmtls.AuthenticationError
				require.ErrorAs(t, err, &failed)
				require.Equal(t, word.AADSTS, failed.AADSTS)
				require.Equal(t, azmtls.RecoveryNone, failed.Recovery)
			}
			for range 20 {
				fail()
			}
			require.Equal(t, 2, f.server.Counts().Metadata)
			f.clock.Advance(5 * time.Minute)
			fail()
			require.Equal(t, 3, f.server.Counts().Metadata)
			require.Zero(t, f.store.evicted())
			require.Equal(t, 1, f.server.Counts().Issued)
			_, err = f.token(vault)
			require.NoError(t, err, "the tokens at hand serve on")
		})
	}
}
