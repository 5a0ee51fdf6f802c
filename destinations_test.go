package azmtls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// network is where names lead: those of *.example to the resource, those of *.invalid to a server that notes who comes.
type network struct {
	*fixture
	redirect string // where the resource redirects requests for /away to; others it serves

	mu      sync.Mutex
	strange []string // requests that reached the stranger: host, token headers, certificates
	asked   []string // x-ms-tokenboundauth of those that the resource served
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{}
	n.fixture = newFixture(
		t,
		imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/away" {
				w.Header().Set("Location", n.redirect)
				w.WriteHeader(http.StatusTemporaryRedirect)
				return
			}
			n.mu.Lock()
			n.asked = append(n.asked, r.Header.Get("x-ms-tokenboundauth"))
			n.mu.Unlock()
			echo(w, r)
		})},
		nil,
	)
	return n
}

// stranger starts a server, over TLS or not, and returns its address.
func (n *network) stranger(secure bool) string {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		came := r.Host + ":" + r.Header.Get("Authorization") + r.Header.Get("X-Ms-Authorization-Auxiliary")
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			came += " with a certificate"
		}
		n.strange = append(n.strange, came)
		if r.URL.Path == "/back" {
			http.Redirect(w, r, "https://my.example/there", http.StatusTemporaryRedirect)
		}
	}))
	n.Cleanup(server.Close)
	if !secure {
		server.Start()
		return server.Listener.Addr().String()
	}
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	return server.Listener.Addr().String()
}

// reached returns the requests that reached a stranger.
func (n *network) reached() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.strange
}

// credential returns a credential in the network.
func (n *network) credential(tokenType azmtls.TokenType) *azmtls.ImdsV2MtlsCredential {
	n.Helper()
	resource, err := url.Parse(n.server.ResourceURL())
	require.NoError(n, err)
	secure, plain := n.stranger(true), n.stranger(false)
	return n.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.TokenType = tokenType
		o.MTLSTransport.TLSClientConfig.InsecureSkipVerify = true
		o.MTLSTransport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			name, port, _ := net.SplitHostPort(address)
			switch {
			case port == "80":
				address = plain
			case port == "8443" || strings.HasSuffix(name, ".invalid") || strings.HasPrefix(name, "sub."):
				address = secure
			case name != "127.0.0.1":
				address = resource.Host
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	})
}

// A Client's token, bound or bearer, and the certificate go to the hosts that the Client is for, however they are
// spelled; without any, to the host that the caller's request names. Nothing else gets either, whoever names it, and no
// plain http.
func TestClientSendsItsTokenNowhereElse(t *testing.T) {
	const served = ""
	my, only, away := []string{"my.example"}, "the token is for my.example:443", "https://my.example/away"
	for name, test := range map[string]struct {
		hosts    []string
		url      string // the caller's
		redirect string // from there, empty for none
		refused  string // what the error says
	}{
		"named by the caller":         {nil, "https://my.example/", "", served},
		"of the hosts":                {my, "https://my.example/", "", served},
		"spelled otherwise":           {[]string{"MY.example.:443"}, "https://my.EXAMPLE/", "", served},
		"with the default port":       {my, "https://my.example.:443/", "", served},
		"the second":                  {[]string{"other.example", "my.example"}, "https://my.example/", "", served},
		"none of the hosts":           {my, "https://its.invalid/", "", only},
		"subdomain of a host":         {my, "https://sub.my.example/", "", only},
		"another port of a host":      {my, "https://my.example:8443/", "", only},
		"plain http":                  {nil, "http://my.example/", "", "https only"},
		"plain http, of the hosts":    {[]string{"my.example:80"}, "http://my.example/", "", "https only"},
		"redirect by path":            {nil, away, "/there", served},
		"redirect to itself":          {nil, away, "https://my.example/there", served},
		"redirect, case":              {nil, away, "https://My.Example/there", served},
		"redirect, default port":      {nil, away, "https://my.example:443/there", served},
		"redirect, no default port":   {nil, "https://my.example:443/away", "https://my.example/there", served},
		"redirect, empty port":        {nil, away, "https://my.example:/there", served},
		"redirect, trailing dot":      {nil, away, "https://my.example./there", served},
		"redirect, all of it":         {nil, "https://MY.example:443/away", "https://my.EXAMPLE./there", served},
		"redirect among the hosts":    {[]string{"a.example", "b.example"}, "https://a.example/away", "https://b.example/there", served},
		"redirect, host named before": {my, away, "https://MY.example./there", served},
		"redirect to another host":    {nil, away, "https://its.invalid/", "to its.invalid:443 is refused"},
		"redirect to a subdomain":     {nil, away, "https://sub.my.example/", "to sub.my.example:443 is refused"},
		"redirect to another port":    {nil, away, "https://my.example:8443/", "to my.example:8443 is refused"},
		"redirect to plain http":      {nil, away, "http://my.example/", "https only"},
		"redirect from the hosts":     {my, away, "https://its.invalid/", only},
		"redirect, credentials in it": {nil, away, "https://my.example@its.invalid/", "its.invalid:443 is refused"},
	} {
		for _, tokenType := range []azmtls.TokenType{azmtls.TokenTypeAuto, azmtls.TokenTypeBearer} {
			t.Run(tokenType.String()+"/"+name, func(t *testing.T) {
				t.Parallel()
				n := newNetwork(t)
				n.redirect = test.redirect
				client := n.credential(tokenType).Client(storage, test.hosts...)
				for _, checkRedirect := range []func(*http.Request, []*http.Request) error{
					nil,
					func(*http.Request, []*http.Request) error { return nil }, // the caller's own
				} {
					client.CheckRedirect = checkRedirect
					resp, err := client.Get(test.url)
					if test.refused != "" {
						require.ErrorContains(t, err, test.refused)
						require.Empty(t, n.reached(), "nothing at all is sent")
						if test.redirect == "" {
							require.Zero(t, n.server.Counts().Token, "no token is asked for")
						}
						continue
					}
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.Equal(t, http.StatusOK, resp.StatusCode)
				}
				n.noRejections()
			})
		}
	}
}

// A host that is none is said so by every request, before anything is asked for: the caller misspelled what is to
// protect him.
func TestClientForHostsThatAreNone(t *testing.T) {
	for _, host := range []string{
		"", "https://my.example", "my.example/", "my.example:", "my.example:0", "my.example:port", "user@my.example", "*.example",
		"my.example, its.example", "my.example ", "[my.example]",
	} {
		f := newFixture(t, imdstest.Options{}, nil)
		body := &closeRecorder{Reader: strings.NewReader("payload")}
		_, err := f.cred.Client(storage, "127.0.0.1", host).Post(f.server.ResourceURL(), "text/plain", body)
		require.ErrorContains(t, err, fmt.Sprintf("the host %q is not one", host))
		require.True(t, body.closed.Load())
		require.Zero(t, f.server.Counts())
	}
}

// A request without a URL is an error, also where no http.Client stands before the transport.
func TestClientsTransportByItself(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	transport := f.cred.Client(storage).Transport
	for _, u := range []*url.URL{nil, {}, {Scheme: "https", Path: "/"}, {Scheme: "https", Host: ":443"}} {
		_, err := transport.RoundTrip(&http.Request{URL: u})
		require.ErrorContains(t, err, "names no host")
	}
	// A redirect whose origin is not known is to be distrusted.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.ResourceURL(), nil)
	require.NoError(t, err)
	req.Response = &http.Response{}
	_, err = transport.RoundTrip(req)
	require.ErrorContains(t, err, "refused")
	require.Zero(t, f.server.Counts())
}

// The response of a Client shows the caller his own request, without the token that went out in its place.
func TestClientsResponseHoldsNoToken(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.ResourceURL(), nil)
	require.NoError(t, err)
	resp, err := f.cred.Client(storage).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Same(t, req, resp.Request)
	require.Empty(t, req.Header)
}

// A bound SDK client whose request goes out as bearer follows redirects, as azcore's own clients do: registries send
// their blobs so. The token stays behind, where net/http would take it along to another port, to a subdomain and to
// plain http.
func TestBearerTokenStaysBehindRedirects(t *testing.T) {
	for name, test := range map[string]struct{ to, strange string }{
		"the same host":           {"https://MY.example:443/there", ""},
		"another host":            {"https://its.invalid/", "its.invalid:"},
		"a subdomain":             {"https://sub.my.example/", "sub.my.example:"},
		"another port":            {"https://my.example:8443/", "my.example:8443:"},
		"plain http":              {"http://my.example/", "my.example:"},
		"plain http, port of TLS": {"http://my.example:80/", "my.example:80:"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			n.redirect = test.to
			cred := n.credential(azmtls.TokenTypeBearer)
			options := &azcore.ClientOptions{}
			cred.BindClientOptions(options)
			req, err := runtime.NewRequest(t.Context(), http.MethodGet, "https://my.example/away")
			require.NoError(t, err)
			req.Raw().Header.Set("x-ms-authorization-auxiliary", "Bearer auxiliary")
			resp, err := sdkClient(cred, options).Do(req)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			if test.strange == "" {
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "Bearer ", string(body))
				require.Empty(t, n.reached())
				return
			}
			require.Equal(t, []string{test.strange}, n.reached())
		})
	}
	t.Run("and back", func(t *testing.T) {
		n := newNetwork(t)
		n.redirect = "https://its.invalid/back"
		cred := n.credential(azmtls.TokenTypeBearer)
		options := &azcore.ClientOptions{}
		cred.BindClientOptions(options)
		status, _, err := send(t.Context(), sdkClient(cred, options), http.MethodGet, "https://my.example/away", "")
		require.NoError(t, err)
		require.Equal(t, []string{"its.invalid:"}, n.reached())
		require.Equal(t, http.StatusUnauthorized, status, "what another host sends it to, it asks for without the token")
	})
	t.Run("for ever", func(t *testing.T) {
		n := newNetwork(t)
		n.redirect = "https://my.example/away"
		cred := n.credential(azmtls.TokenTypeBearer)
		options := &azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
		cred.BindClientOptions(options)
		_, _, err := send(t.Context(), sdkClient(cred, options), http.MethodGet, "https://my.example/away", "")
		require.ErrorContains(t, err, "10 redirects")
	})
}

// A bound token and its certificate follow no redirect at all: the SDK client gets it.
func TestBoundTokenFollowsNoRedirect(t *testing.T) {
	n := newNetwork(t)
	n.redirect = "https://its.invalid/"
	cred := n.credential(azmtls.TokenTypeAuto)
	options := &azcore.ClientOptions{}
	cred.BindClientOptions(options)
	status, _, err := send(t.Context(), sdkClient(cred, options), http.MethodGet, "https://my.example/away", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, status)
	require.Empty(t, n.reached())
}
