package azmtls_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// countedConn is a connection that is counted as long as it is open.
type countedConn struct {
	net.Conn
	once sync.Once
	open *atomic.Int32
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// After Close no connection stays, whichever way it came about: tokens, bound clients, Client with bound and with
// bearer tokens, IMDS. The http.Client of Client closes them too.
func TestCloseLeavesNoConnection(t *testing.T) {
	for name, closeIdle := range map[string]func(*azmtls.ImdsV2MtlsCredential, *http.Client){
		"Close":                func(c *azmtls.ImdsV2MtlsCredential, _ *http.Client) { _ = c.Close() },
		"CloseIdleConnections": func(_ *azmtls.ImdsV2MtlsCredential, c *http.Client) { c.CloseIdleConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			var open atomic.Int32
			f := newFixture(t, imdstest.Options{ResourceHandler: echo}, nil)
			t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f.server.IMDSURL())
			f.server.Inject(imdstest.Fault{ // Entra binds no tokens for one of the resources
				Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS392196"}, Times: 1,
			})
			cred := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.Transport = nil // IMDS over the credential's own connections
				o.MTLSTransport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
					if err == nil {
						open.Add(1)
						conn = &countedConn{Conn: conn, open: &open}
					}
					return conn, err
				}
			})
			client := cred.Client("https://one.example")
			for _, c := range []*http.Client{client, client, cred.Client("https://two.example")} {
				resp, err := c.Get(f.server.ResourceURL())
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, resp.StatusCode)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
			}
			options := azcore.ClientOptions{}
			cred.BindClientOptions(&options)
			_, _, err := send(t.Context(), sdkClient(cred, &options), http.MethodGet, f.server.ResourceURL(), "")
			require.NoError(t, err)
			require.GreaterOrEqual(t, open.Load(), int32(3), "Entra, the resource bound, the resource unbound")
			closeIdle(cred, client)
			require.Eventually(t, func() bool {
				return open.Load() == 0 && clientConnections() == 0 // those to IMDS are not counted otherwise
			}, 5*time.Second, 10*time.Millisecond)
			_, err = cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
			require.NoError(t, err, "it works on")
		})
	}
}

// A closed credential works without anything in the background.
func TestClosedCredentialRefreshesNothing(t *testing.T) {
	f := newFixture(t, imdstest.Options{CertificateLifetime: 23 * time.Hour}, nil)
	require.NoError(t, f.cred.Close())
	require.NoError(t, f.cred.Close())
	first, err := f.token(vault)
	require.NoError(t, err)
	f.clock.Advance(40 * time.Minute)
	again, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, first, again)
	for range 5 { // time for a refresh, if one was begun
		_, err = f.asks(storage)
		require.NoError(t, err)
	}
	require.Equal(t, 6, f.server.Counts().Token)
	f.clock.Advance(21 * time.Hour)
	_, err = f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Equal(t, 7, f.server.Counts().Token)
}
