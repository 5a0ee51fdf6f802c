package azmtls_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// declines has Entra decline so many of the next token requests, the first of which is one for a bound token.
func (f *fixture) declines(answer imdstest.EntraError, times int) (remove func()) {
	return f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: answer, Times: times})
}

// scheme makes a request of a bound client, and returns the scheme that its token was sent with.
func (f *fixture) scheme(scope string) (string, error) {
	resp, err := f.cred.Client(scope).Get(f.server.ResourceURL())
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(body)), errors.Join(err, resp.Body.Close())
}

// grantable are answers to a request for a bound token after which a bearer token may be had.
var grantable = map[string]imdstest.EntraError{
	"400":                       {OAuth: "invalid_request", AADSTS: "AADSTS900144"},
	"a code of binding":         {OAuth: "invalid_request", AADSTS: "AADSTS392196"},
	"a code of binding, as 401": {OAuth: "invalid_client", AADSTS: "AADSTS392196"},
	"401 with OAuth's JSON":     {OAuth: "invalid_grant", AADSTS: "AADSTS900144", Status: 401},
	"a code like 530xx":         {OAuth: "invalid_grant", AADSTS: "AADSTS5300"},
}

// Where Entra declines a bound token and grants a bearer one, Auto uses that, with the same binding, for about an hour.
func TestBearerWhereItIsGranted(t *testing.T) {
	for name, answer := range grantable {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{TokenLifetime: 5 * time.Minute, ResourceHandler: echo}, nil)
			lines := logged(t, "bearer tokens for it for an hour")
			f.declines(answer, 1)
			requests := 0
			get := func(scope, want string, more int) {
				t.Helper()
				got, err := f.scheme(scope)
				require.NoError(t, err)
				require.Equal(t, want, got)
				requests += more
				require.Equal(t, requests, f.server.Counts().Token)
			}
			get(storage, "Bearer", 2)
			for range 5 {
				f.clock.Advance(10 * time.Minute)
				get(storage, "Bearer", 1)
			}
			get(vault, "mtls_pop", 1)
			require.Equal(t, 1, lines(), "logged once")
			f.clock.Advance(17 * time.Minute)
			get(storage, "mtls_pop", 1) // an hour has passed, and Entra has changed its mind
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Zero(t, f.store.evicted())
			f.noRejections()
		})
	}
}

// Where it grants neither, the first error stands, and bearer is not tried for about an hour.
func TestNeitherIsGranted(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
	first := imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS900144"}
	for range 2 {
		f.declines(first, 1)
		f.declines(imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS900145"}, 1)
		before := f.server.Counts().Token
		fails := func(more int) {
			t.Helper()
			_, err := f.scheme(storage)
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, "AADSTS900144", failure.AADSTS)
			require.Equal(t, before+more, f.server.Counts().Token)
		}
		fails(2)
		remove := f.declines(first, 0)
		for n := range 5 {
			f.clock.Advance(10 * time.Minute)
			fails(3 + n)
		}
		remove()
		f.clock.Advance(17 * time.Minute)
	}
	got, err := f.scheme(storage)
	require.NoError(t, err)
	require.Equal(t, "mtls_pop", got)
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Zero(t, f.store.evicted())
}

// That Entra could not be reached for the bearer token says nothing: it is tried again.
func TestBearerRequestThatIsLostIsNotRemembered(t *testing.T) {
	f := newFixture(t, imdstest.Options{ResourceHandler: echo}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.Retry.MaxRetries = -1
	})
	declined := imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS900144"}
	f.declines(declined, 1)
	lost := f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Token, At: imdstest.AtBody, Do: imdstest.Reset{}, Skip: 1, Times: 1,
	})
	_, err := f.scheme(storage)
	require.ErrorContains(t, err, "AADSTS900144", "the first error stands")
	lost()
	f.declines(declined, 1)
	got, err := f.scheme(storage)
	require.NoError(t, err)
	require.Equal(t, "Bearer", got)
}

// Entra's answer to who asks for what is an answer: bearer would hide it.
func TestAnswersAreNotTriedAround(t *testing.T) {
	answers := map[string]imdstest.EntraError{}
	for code := range strings.FieldsSeq(
		"interaction_required invalid_scope unauthorized_client access_denied temporarily_unavailable") {
		answers[code] = imdstest.EntraError{OAuth: code, AADSTS: "AADSTS900144"}
	}
	for code := range strings.FieldsSeq(
		"AADSTS70011 AADSTS500011 AADSTS700016 AADSTS7000229 AADSTS53000 AADSTS53003 AADSTS50196") {
		answers[code] = imdstest.EntraError{OAuth: "invalid_request", AADSTS: code}
		answers[code+" as 401"] = imdstest.EntraError{OAuth: "invalid_grant", AADSTS: code, Status: 401}
	}
	answers["403"] = imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS900144", Status: 403}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
			f.declines(answer, 1)
			_, err := f.scheme(storage)
			require.ErrorContains(t, err, answer.AADSTS)
			require.Equal(t, 1, f.server.Counts().Token)
			require.Zero(t, f.store.evicted())
			got, err := f.scheme(storage)
			require.NoError(t, err)
			require.Equal(t, "mtls_pop", got, "nothing is remembered")
		})
	}
}

// A claims challenge is not answered by a token of another kind, neither where the request carries claims nor where the
// answer does.
func TestClaimsAreNotTriedAround(t *testing.T) {
	t.Run("in the request", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
		challenge := http.Header{
			"Www-Authenticate": {`Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="`},
		}
		f.server.Inject(imdstest.Fault{
			Endpoint: imdstest.Resource, Do: imdstest.Respond{Status: 401, Header: challenge}, Times: 1,
		})
		declined := imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS900144"}
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: declined, Skip: 1, Times: 1})
		_, err := f.scheme(storage)
		require.ErrorContains(t, err, "AADSTS900144")
		require.Equal(t, 2, f.server.Counts().Token)
	})
	t.Run("in the answer", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Times: 1, Do: imdstest.Respond{
			Status: 400, Header: http.Header{"Content-Type": {"application/json"}},
			Body: `{"error":"invalid_grant","error_description":"AADSTS900144: no.","claims":"{\"access_token\":{}}"}`,
		}})
		_, err := f.scheme(storage)
		require.ErrorContains(t, err, "AADSTS900144")
		require.Equal(t, 1, f.server.Counts().Token)
	})
}

// A tenant that binds no tokens does so for no resource.
func TestTenantWithoutTokenBinding(t *testing.T) {
	for _, oauth := range []string{"invalid_request", "invalid_client"} {
		f := newFixture(t, imdstest.Options{TokenLifetime: asked, ResourceHandler: echo}, nil)
		f.declines(imdstest.EntraError{OAuth: oauth, AADSTS: "AADSTS3921996"}, 1)
		for n, scope := range []string{storage, vault, "https://graph.microsoft.com/.default"} {
			got, err := f.scheme(scope)
			require.NoError(t, err)
			require.Equal(t, "Bearer", got)
			require.Equal(t, 2+n, f.server.Counts().Token, "only the first one is asked for as a bound token")
		}
		f.clock.Advance(67 * time.Minute)
		got, err := f.scheme(vault)
		require.NoError(t, err)
		require.Equal(t, "mtls_pop", got)
		require.Equal(t, 1, f.server.Counts().Issued)
		require.Zero(t, f.store.evicted())
	}
}

// Whoever demands proof of possession gets the first error, and is told where it cannot be had.
func TestDemandedProofOfPossessionIsNotDowngraded(t *testing.T) {
	for answer, unsupported := range map[imdstest.EntraError]bool{
		{OAuth: "invalid_request", AADSTS: "AADSTS392196"}:  true,
		{OAuth: "invalid_client", AADSTS: "AADSTS392196"}:   true,
		{OAuth: "invalid_request", AADSTS: "AADSTS3921996"}: true,
		{OAuth: "invalid_client", AADSTS: "AADSTS3921996"}:  true,
		{OAuth: "invalid_request", AADSTS: "AADSTS3921960"}: false,
		{OAuth: "invalid_request", AADSTS: "AADSTS900144"}:  false,
	} {
		t.Run(fmt.Sprintf("%s, %s", answer.AADSTS, answer.OAuth), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.TokenType = azmtls.TokenTypeMtlsPoP
			})
			f.declines(answer, 1)
			_, err := f.token(vault)
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, answer.AADSTS, failure.AADSTS)
			if unsupported {
				require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
			} else {
				require.NotErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
			}
			require.Equal(t, 1, f.server.Counts().Token)
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Zero(t, f.store.evicted())
		})
	}
}
