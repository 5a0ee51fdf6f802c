package azmtls_test

import (
	"context"
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

// Where there is no IMDS v2, a chain goes on, and soon: at once where something says so, and after 4 seconds of
// silence. A machine without IMDS waits that long at every start.
func TestChainMovesOn(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts into its backlog, never answers
	require.NoError(t, err)
	defer silent.Close()
	v1 := httptest.NewServer(http.NotFoundHandler())
	defer v1.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "nginx")
		_, _ = w.Write([]byte("<html>Please log in</html>"))
	}))
	defer web.Close()
	for name, test := range map[string]struct {
		url   string
		takes time.Duration
	}{
		"404":           {v1.URL, 0},
		"refused":       {"http://127.0.0.1:1", 0}, // no other test is given that port
		"not IMDS":      {web.URL, 0},
		"never answers": {"http://" + silent.Addr().String(), 4 * time.Second},
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
				// The limit of the first answer, and that of the try.
				require.Eventually(t, func() bool { return now.Waiting() == 2 }, 10*time.Second, time.Millisecond)
				now.Advance(test.takes - time.Millisecond)
				require.Equal(t, 2, now.Waiting(), "it goes on waiting")
				now.Advance(time.Millisecond)
			}
			require.Equal(t, "fallback", <-tokens)
			require.Zero(t, now.Waiting(), "no other wait was begun")
		})
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
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"}})
	chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{f.cred, fallback{}}, nil)
	require.NoError(t, err)
	_, err = chain.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
	require.ErrorContains(t, err, "AADSTS700016")
}
