package mtls_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// issued returns a simulator and a binding that its token endpoint takes.
func issued(t *testing.T, options imdstest.Options) (*imdstest.Server, *mtls.Binding) {
	t.Helper()
	server := imdstest.NewServer(&options)
	t.Cleanup(server.Close)
	leaf, err := server.IssueCertificate(testKey().Public(), testClientID)
	require.NoError(t, err)
	b, err := mtls.NewBinding(leaf, testKey(), server.TokenURL()+"/tenant", testClientID)
	require.NoError(t, err)
	return server, b
}

// post sends a body to the token endpoint; an answer of whatever status means that the connection worked.
func post(t *testing.T, transport *mtls.Transport, url string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("payload"))
	require.NoError(t, err)
	resp, err := transport.Do(req)
	if err == nil {
		require.NoError(t, resp.Body.Close())
	}
	return err
}

// connectProxy is an HTTP proxy that tunnels.
func connectProxy(t *testing.T) (proxy *httptest.Server, tunnels *atomic.Int32) {
	tunnels = &atomic.Int32{}
	proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		tunnels.Add(1)
		upstream, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(upstream, buffered); _ = upstream.Close() }()
		go func() { _, _ = io.Copy(client, upstream); _ = client.Close() }()
	}))
	t.Cleanup(proxy.Close)
	return proxy, tunnels
}

// Through a proxy the same evidence is seen as without one.
func TestTransportThroughAProxy(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server, b := issued(t, imdstest.Options{TLSVersion: version})
		proxy, tunnels := connectProxy(t)
		address, err := url.Parse(proxy.URL)
		require.NoError(t, err)
		template := server.MTLSTransport()
		template.Proxy = http.ProxyURL(address)
		transport := mtls.NewTransport(template, b)
		require.NoError(t, post(t, transport, server.TokenURL()))
		require.EqualValues(t, 1, tunnels.Load())
		require.Equal(t, 1, server.Presented(b.Thumbprint()))

		transport.CloseIdleConnections()
		server.Refuse(b.Thumbprint(), 48)
		err = post(t, transport, server.TokenURL())
		var refusal *mtls.Refusal
		require.ErrorAs(t, err, &refusal)
		require.Same(t, b, refusal.Binding)
	}
}

// A template's own look at what a proxy answers is taken, and its error is the caller's: it costs no binding.
func TestTransportLooksAtTheProxysAnswer(t *testing.T) {
	server, b := issued(t, imdstest.Options{})
	proxy, tunnels := connectProxy(t)
	address, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	template, looks, own := server.MTLSTransport(), 0, error(nil)
	template.Proxy = http.ProxyURL(address)
	template.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, _ *http.Response) error {
		looks++
		require.Equal(t, address, proxy)
		return own
	}
	transport := mtls.NewTransport(template, b)
	require.NoError(t, post(t, transport, server.TokenURL()))
	require.Equal(t, 1, looks)

	transport.CloseIdleConnections()
	own = errors.New("not by this proxy")
	err = post(t, transport, server.TokenURL())
	require.ErrorIs(t, err, own)
	require.False(t, isRefusal(err))
	require.EqualValues(t, 2, tunnels.Load())
	require.Equal(t, 1, server.Presented(b.Thumbprint()))
}

// A proxy that is reached over TLS could ask for the certificate, which is meant for Entra: it is not even dialed.
func TestTransportRefusesTLSProxies(t *testing.T) {
	server, b := issued(t, imdstest.Options{})
	template := server.MTLSTransport()
	template.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: "proxy.example"})
	template.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("dialed %s", address)
		return nil, errors.New("not here")
	}
	err := post(t, mtls.NewTransport(template, b), server.TokenURL())
	require.ErrorContains(t, err, "the proxy proxy.example is reached over TLS")
}

func TestTransportSpeaksHTTPSOnly(t *testing.T) {
	server, b := issued(t, imdstest.Options{})
	require.ErrorContains(t, post(t, mtls.NewTransport(server.MTLSTransport(), b), server.IMDSURL()), "https only")
}

// A redirect would carry the certificate elsewhere.
func TestTransportFollowsNoRedirect(t *testing.T) {
	server, b := issued(t, imdstest.Options{})
	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Redirect()})
	require.NoError(t, post(t, mtls.NewTransport(server.MTLSTransport(), b), server.TokenURL()))
	require.Equal(t, 1, server.Counts().Token)
	require.Empty(t, server.Rejections())
}

// A lost connection is repeated only if the body can be read again; nothing is sent half.
func TestTransportDoesNotRepeatWhatItCannotReadAgain(t *testing.T) {
	server, b := issued(t, imdstest.Options{})
	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Reset{}})
	for name, again := range map[string]func() (io.ReadCloser, error){
		"none":    nil,
		"failing": func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") },
	} {
		req, err := http.NewRequestWithContext(
			t.Context(),
			http.MethodPost,
			server.TokenURL(),
			io.NopCloser(strings.NewReader("payload")),
		)
		require.NoError(t, err)
		req.GetBody = again
		_, err = mtls.NewTransport(server.MTLSTransport(), b).RoundTrip(req)
		require.ErrorContains(t, err, "cannot be read again", name)
		var refusal *mtls.Refusal
		require.NotErrorAs(t, err, &refusal, "one loss is no evidence")
	}
	require.Equal(t, 2, server.Counts().Token)
}

// A server that ends a TLS 1.3 handshake without asking for the certificate gets TLS 1.2, in which it could ask later,
// and the request only there: once for each host, and said in the log. One that speaks nothing else is spoken to as it
// likes.
func TestTransportNoticesWhoDoesNotAsk(t *testing.T) {
	for name, test := range map[string]struct {
		server, template uint16 // lowest versions
		want             []uint16
		logged           []string
	}{
		"both":                     {tls.VersionTLS12, 0, []uint16{tls.VersionTLS12, tls.VersionTLS12}, []string{"did not ask"}},
		"TLS 1.3 for the server":   {tls.VersionTLS13, 0, []uint16{tls.VersionTLS13, tls.VersionTLS13}, []string{"did not ask", "failed over TLS 1.2"}},
		"TLS 1.3 for the template": {tls.VersionTLS12, tls.VersionTLS13, []uint16{tls.VersionTLS13, tls.VersionTLS13}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var noticed []string
			hunt.Listen(t, func(event log.Event, message string) {
				mu.Lock()
				defer mu.Unlock()
				if event == eventlog.Binding {
					noticed = append(noticed, message)
				}
			})
			var versions []uint16
			plain := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if string(body) != "payload" {
					t.Errorf("got %q", body)
				}
				versions = append(versions, r.TLS.Version)
			}))
			plain.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
			plain.TLS = &tls.Config{MinVersion: test.server}
			plain.StartTLS()
			defer plain.Close()
			template := &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs:    plain.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
				MinVersion: test.template,
			}}
			transport := mtls.NewTransport(template, binding(t, nil))
			for range 2 {
				require.NoError(t, post(t, transport, plain.URL))
			}
			require.Equal(t, test.want, versions)
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, noticed, len(test.logged))
			for i, text := range test.logged {
				require.Contains(t, noticed[i], text)
			}
		})
	}
}

// The template is cloned and hardened: HTTP/1.1, TLS 1.2 at least.
func TestTransportKeepsItsManners(t *testing.T) {
	var mu sync.Mutex
	var state tls.ConnectionState
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		state = *r.TLS
		if r.ProtoMajor != 1 {
			t.Errorf("HTTP/%d", r.ProtoMajor)
		}
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	template := server.Client().Transport.(*http.Transport).Clone()
	template.ForceAttemptHTTP2 = true
	template.TLSClientConfig.MinVersion = tls.VersionTLS10
	b := binding(t, nil)
	require.NoError(t, post(t, mtls.NewTransport(template, b), server.URL))
	require.Equal(t, b.Certificate.Leaf.Raw, state.PeerCertificates[0].Raw)
	require.NotEqual(t, "h2", state.NegotiatedProtocol)
	require.Nil(t, template.TLSClientConfig.GetClientCertificate, "the template itself is left alone")

	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	old.StartTLS()
	defer old.Close()
	require.ErrorContains(t, post(t, mtls.NewTransport(template, b), old.URL), "version")
}

// A template that cannot serve says so at every request; nothing is sent.
func TestTransportOfAUselessTemplate(t *testing.T) {
	server, b := issued(t, imdstest.Options{})
	for culprit, spoil := range map[string]func(*http.Transport){
		"DialTLS":           func(h *http.Transport) { h.DialTLSContext = (&net.Dialer{}).DialContext },
		"MaxVersion":        func(h *http.Transport) { h.TLSClientConfig.MaxVersion = tls.VersionTLS11 },
		"certificate of it": func(h *http.Transport) { h.TLSClientConfig.Certificates = make([]tls.Certificate, 1) },
	} {
		template := server.MTLSTransport()
		spoil(template)
		require.ErrorContains(t, post(t, mtls.NewTransport(template, b), server.TokenURL()), culprit)
	}
	require.ErrorContains(t, post(t, mtls.NewTransport(server.MTLSTransport(), nil), server.TokenURL()), "no binding")
	require.Zero(t, server.Counts().TokenConnections)
}
