package azmtls_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type fallback struct{}

func (fallback) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "fallback", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// Where there is no IMDS v2, a chain goes on, and soon: at once where something answers, whatever it says and is, and
// after 4 seconds of silence. A machine without IMDS waits that long at every start.
func TestChainMovesOn(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts into its backlog, never answers
	require.NoError(t, err)
	defer silent.Close()
	answers := func(status int, server, body string) string {
		stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Server"] = nil
			if server != "" {
				w.Header().Set("Server", server)
			}
			if status/100 == 3 {
				w.Header().Set("Location", "http://"+r.Host+"/login")
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(stranger.Close)
		return stranger.URL
	}
	for name, test := range map[string]struct {
		url   string
		takes time.Duration
	}{
		"404":               {answers(404, "IMDS/150.870.65.1854", ""), 0},
		"no identity":       {answers(400, "IMDS/150.870.65.1854", `{"error":"invalid_request","error_description":"Identity not found"}`), 0},
		"refused":           {"http://127.0.0.1:1", 0}, // no other test is given that port
		"a website":         {answers(200, "nginx", "<html>Please log in</html>"), 0},
		"a container proxy": {answers(403, "", "connecting to 169.254.169.254:80: unreachable network"), 0},
		"another cloud":     {answers(401, "EC2ws", ""), 0},
		"a portal":          {answers(302, "", ""), 0},
		"an ill proxy":      {answers(503, "", "Service Unavailable"), 0},
		"never answers":     {"http://" + silent.Addr().String(), 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", test.url)
			now := clock.NewFake(time.Now())
			now.Manual()
			cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
				Store: mtls.NoStore{}, Cache: &mtls.Cache{Clock: now.Clock()},
			})
			require.NoError(t, err)
			defer cred.Close()
			chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{cred, fallback{}}, nil)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // for a machine that is busy
			defer cancel()
			tokens := make(chan string, 1)
			go func() {
				token, err := chain.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
				assert.NoError(t, err)
				tokens <- token.Token
			}()
			if test.takes > 0 {
				next := func() time.Duration { d, _ := now.Next(); return d }
				require.Eventually(t, func() bool { return next() == test.takes }, 10*time.Second, time.Millisecond)
				now.Advance(test.takes - time.Millisecond)
				require.Equal(t, time.Millisecond, next(), "it goes on waiting")
				now.Advance(time.Millisecond)
			}
			require.Equal(t, "fallback", <-tokens)
			require.Zero(t, now.Waiting(), "no other wait was begun")
		})
	}
}

// A machine whose keys IMDS v2 does not certify is an ordinary one: a chain goes on, and calls cost nothing while the
// next attempt waits for its time. Who demanded what only IMDS v2 gives is told, and so is everybody of what is no
// refusal of the key.
func TestChainMovesOnWhereNoKeyIsCertified(t *testing.T) {
	demands := map[string]func(*azmtls.ImdsV2MtlsCredentialOptions){
		"nothing":             func(*azmtls.ImdsV2MtlsCredentialOptions) {},
		"bearer":              func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeBearer },
		"proof of possession": func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP },
		"a strength":          func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.MinBindingStrength = mtls.StrengthSoftware },
	}
	for name, demand := range demands {
		for _, status := range []int{400, 403, 404, 405, 501, 401, 429, 500} {
			refusal := status != 401 && status != 429 && status != 500
			t.Run(fmt.Sprintf("%s, %d", name, status), func(t *testing.T) {
				f := newFixture(t, imdstest.Options{}, demand)
				f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{
					Status: status, Body: `{"error":"bad_key","error_description":"This key is not attested"}`,
				}})
				chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{f.cred, fallback{}}, nil)
				require.NoError(t, err)
				for range 3 {
					token, err := chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
					_, own := f.token(vault)
					require.ErrorContains(t, own, "This key is not attested")
					var response *azcore.ResponseError
					require.ErrorAs(t, own, &response)
					require.Equal(t, status, response.StatusCode)
					var failed *azmtls.AuthenticationError
					if refusal && (name == "nothing" || name == "bearer") {
						require.NoError(t, err)
						require.Equal(t, "fallback", token.Token)
						require.NotErrorAs(t, own, &failed)
					} else {
						require.ErrorContains(t, err, "This key is not attested")
						require.ErrorAs(t, own, &failed)
					}
				}
				if refusal {
					require.Equal(t, 1, f.server.Counts().Metadata, "it costs a unit of the budget")
				}
			})
		}
	}
}

// A negative answer is not remembered: IMDS may come up after the process.
func TestUnavailableIsNotLatched(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: 404}, Times: 1})
	_, err := f.token(vault)
	var failure *azmtls.AuthenticationError
	require.NotErrorAs(t, err, &failure)
	require.ErrorContains(t, err, "404")
	_, err = f.token(vault)
	require.NoError(t, err)
}

// Every other failure stops a chain: another credential would hide it.
func TestChainStopsAtRealFailures(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(
		imdstest.Fault{
			Endpoint: imdstest.Token,
			Do:       imdstest.EntraError{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"},
		},
	)
	chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{f.cred, fallback{}}, nil)
	require.NoError(t, err)
	_, err = chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
	require.ErrorContains(t, err, "AADSTS700016")
}
