package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/data/azcosmos"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// cosmos is a small account of Cosmos DB with one database. It takes bearer tokens in a header of its own form, and no
// certificate.
type cosmos struct {
	*httptest.Server
	mu       sync.Mutex
	served   []string // method and path
	problems []string // what a real account would refuse
}

func startCosmos(t *testing.T) *cosmos {
	t.Helper()
	c := &cosmos{}
	c.Server = startAsking(t, http.HandlerFunc(c.serve))
	return c
}

// startAsking starts a server that asks every client for a certificate, so that it sees the one that should not be
// there.
func startAsking(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func (c *cosmos) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if problem := c.check(r); problem != "" {
		c.problems = append(c.problems, problem)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"code":"Unauthorized","message":%q}`, problem)
		return
	}
	c.served = append(c.served, r.Method+" "+r.URL.Path)
	locations := fmt.Sprintf(`[{"name":"Here","databaseAccountEndpoint":%q}]`, c.URL)
	switch r.URL.Path {
	case "/":
		fmt.Fprintf(w, `{"id":"account","writableLocations":%s,"readableLocations":%s,"enableMultipleWriteLocations":false,`+
			`"userConsistencyPolicy":{"defaultConsistencyLevel":"Session"}}`, locations, locations)
	case "/dbs/evidence":
		fmt.Fprint(w, `{"id":"evidence","_rid":"rid","_self":"dbs/rid/","_etag":"\"1\"","_ts":1}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"code":"NotFound","message":"there is no such thing"}`)
	}
}

func (c *cosmos) check(r *http.Request) (problem string) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "type=aad&ver=1.0&sig=")
	switch {
	case len(r.TLS.PeerCertificates) > 0:
		return "a client certificate was presented"
	case !ok:
		return "the authorization is not of the form type=aad"
	case r.Header.Get("x-ms-date") == "" || r.Header.Get("x-ms-version") == "":
		return "x-ms-date or x-ms-version is missing"
	case r.Header.Get("x-ms-tokenboundauth") != "":
		return "x-ms-tokenboundauth is of Key Vault"
	}
	return checkBearer(token, "https://127.0.0.1")
}

// checkBearer says what is wrong with a token that should be a bearer token for the audience.
func checkBearer(token, audience string) (problem string) {
	var claims struct {
		Audience string `json:"aud"`
	}
	switch {
	case json.Unmarshal(payloadOf(token), &claims) != nil:
		return "it carries no token"
	case confirmationOf(token) != "":
		return "the token is bound to a certificate that was not presented"
	case claims.Audience != audience:
		return "the token is for " + claims.Audience
	}
	return ""
}

// newTrusting returns a credential that trusts these servers as well as the simulator's.
func newTrusting(
	t *testing.T, server *imdstest.Server, tokenType azmtls.TokenType, others ...*httptest.Server,
) *azmtls.ImdsV2MtlsCredential {
	t.Helper()
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(),
		MTLSTransport: trusting(server, others...),
		TokenType:     tokenType,
		Store:         mtls.NoStore{},
		Cache:         &mtls.Cache{},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cred.Close()) })
	return cred
}

func trusting(server *imdstest.Server, others ...*httptest.Server) *http.Transport {
	template := server.MTLSTransport()
	for _, other := range others {
		template.TLSClientConfig.RootCAs.AddCert(other.Certificate())
	}
	return template
}

// countLines counts the lines of azcore's log that hold a text, until the test ends.
func countLines(t *testing.T, text string) (count func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	hunt.Listen(t, func(_ log.Event, line string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(line, text) {
			n++
		}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// bindings are how a client and a credential come together.
var bindings = map[string]struct {
	tokenType azmtls.TokenType
	bind      bool
}{
	"bound":             {azmtls.TokenTypeAuto, true},
	"not bound":         {azmtls.TokenTypeAuto, false},
	"bound, bearer":     {azmtls.TokenTypeBearer, true},
	"not bound, bearer": {azmtls.TokenTypeBearer, false},
}

const saysElsewhere = "that it does not send as Authorization: Bearer"

// TestCosmos: the real SDK client puts its token into a header of its own form. Bound or not, it gets a bearer token,
// and the log tells once where that is not what was wanted.
func TestCosmos(t *testing.T) {
	for name, test := range bindings {
		t.Run(name, func(t *testing.T) {
			server := imdstest.NewServer(nil)
			defer server.Close()
			account := startCosmos(t)
			cred := newTrusting(t, server, test.tokenType, account.Server)
			options := azcosmos.ClientOptions{ClientOptions: azcore.ClientOptions{
				Transport: &http.Client{Transport: trusting(server, account.Server)},
			}}
			want := 0
			if test.bind {
				options.Transport = nil
				cred.BindClientOptions(&options.ClientOptions)
				if test.tokenType == azmtls.TokenTypeAuto {
					want = 1
				}
			}
			lines := countLines(t, saysElsewhere)
			for range 2 {
				client, err := azcosmos.NewClient(account.URL, cred, &options)
				require.NoError(t, err)
				database, err := client.NewDatabase("evidence")
				require.NoError(t, err)
				read, err := database.Read(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, "evidence", read.DatabaseProperties.ID)
			}
			require.Empty(t, account.problems)
			require.Contains(t, account.served, "GET /dbs/evidence")
			require.Equal(t, want, lines())
			require.Empty(t, server.Rejections())
		})
	}
}

// TestCosmosWhereBoundTokensAreDemanded: no token leaves without its certificate; the error says what to do.
func TestCosmosWhereBoundTokensAreDemanded(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	account := startCosmos(t)
	cred := newTrusting(t, server, azmtls.TokenTypeMtlsPoP, account.Server)
	options := azcosmos.ClientOptions{}
	cred.BindClientOptions(&options.ClientOptions)
	client, err := azcosmos.NewClient(account.URL, cred, &options)
	require.NoError(t, err)
	database, err := client.NewDatabase("evidence")
	require.NoError(t, err)
	_, err = database.Read(t.Context(), nil)
	require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
	require.ErrorContains(t, err, "TokenTypeAuto")
	require.Empty(t, account.served)
	require.Empty(t, account.problems, "nothing was sent")
}
