package imdstest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// Endpoint is one of the things that a Server simulates.
type Endpoint string

const (
	// Metadata is IMDS's getplatformmetadata.
	Metadata Endpoint = "metadata"
	// Issue is IMDS's issuecredential.
	Issue Endpoint = "issue"
	// V1 is the token endpoint of IMDS v1.
	V1 Endpoint = "v1"
	// Token is Entra's mTLS token endpoint.
	Token Endpoint = "token"
	// Resource is the protected resource.
	Resource Endpoint = "resource"
)

// Server is IMDS v2 and v1, Entra and a protected resource on loopback. It is safe for concurrent use.
type Server struct {
	options                   Options
	authority                 *authority
	imds, entra, resource     *http.Server
	imdsURL, tokenURL, ownURL string
	faults                    faults
	certified                 certified
	system                    system
	counters                  counters
	demanded                  atomic.Pointer[demand]
	done                      chan struct{}
	closing                   sync.Once
	running                   sync.WaitGroup
}

// NewServer starts a Server on 127.0.0.1. Nil options are the default ones. It panics if it cannot listen, as
// httptest.NewServer does. The caller must Close it.
func NewServer(options *Options) *Server {
	if options == nil {
		options = &Options{}
	}
	s := &Server{options: options.withDefaults(), done: make(chan struct{})}
	s.authority = newAuthority(s.names()...)
	s.system.recreate(s.options.ClientID)
	s.imds, s.imdsURL = s.serve(s.options.Listener, s.serveIMDS, "http", listenPlain)
	s.entra, s.tokenURL = s.serve(nil, func(w http.ResponseWriter, r *http.Request) {
		s.count(func(c *Counts) { c.Token++ })
		s.exchange(Token, w, r, s.serveToken)
	}, "https", s.listenTLS(Token, tls.RequireAnyClientCert))
	s.resource, s.ownURL = s.serve(nil, func(w http.ResponseWriter, r *http.Request) {
		s.count(func(c *Counts) { c.Resource++ })
		s.exchange(Resource, w, r, s.serveResource)
	}, "https", s.listenTLS(Resource, *s.options.ResourceClientAuth))
	return s
}

// serve starts an HTTP server and returns its URL. It listens on a port of its own if it is given no listener.
func (s *Server) serve(
	listener net.Listener, h http.HandlerFunc, scheme string, wrap func(net.Listener) net.Listener,
) (*http.Server, string) {
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			panic(fmt.Sprintf("imdstest: cannot listen on loopback: %v", err))
		}
	}
	server := &http.Server{
		Handler:     h,
		ErrorLog:    log.New(io.Discard, "", 0), // refused handshakes are what tests provoke
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	s.running.Go(func() { _ = server.Serve(wrap(listener)) })
	return server, scheme + "://" + listener.Addr().String()
}

type connKey struct{}

// Close ends the server and all its connections, hanging ones too. A second call does nothing.
func (s *Server) Close() {
	s.closing.Do(func() { close(s.done) })
	for _, server := range []*http.Server{s.imds, s.entra, s.resource} {
		_ = server.Close()
	}
	s.running.Wait()
}

// ClientOptions returns client options whose Transport sends every request to the simulated IMDS, whatever its host.
func (s *Server) ClientOptions() azcore.ClientOptions {
	return azcore.ClientOptions{Transport: imdsTransport{
		url:    s.imdsURL,
		client: &http.Client{Transport: &http.Transport{}, CheckRedirect: noRedirect},
	}}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// imdsTransport takes requests for 169.254.169.254 to the simulator.
type imdsTransport struct {
	url    string
	client *http.Client
}

func (t imdsTransport) Do(req *http.Request) (*http.Response, error) {
	here := req.Clone(req.Context())
	here.URL.Scheme, here.URL.Host, here.Host = "http", t.url[len("http://"):], ""
	return t.client.Do(here)
}

// MTLSTransport returns a template for connections over mutual TLS that trusts the simulator's servers.
func (s *Server) MTLSTransport() *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.CertPool()}, DialContext: s.dial, MaxIdleConnsPerHost: 100,
	}
}

// IMDSURL returns the base URL of the simulated IMDS, fit for AZURE_POD_IDENTITY_AUTHORITY_HOST.
func (s *Server) IMDSURL() string { return s.imdsURL }

// TokenURL returns the mtls_authentication_endpoint that certificates are issued for.
func (s *Server) TokenURL() string { return s.tokenURL }

// ResourceURL returns the URL of the protected resource: that of Options.Vault, if it is one.
func (s *Server) ResourceURL() string {
	if s.options.Vault != "" {
		return "https://" + s.options.Vault
	}
	return s.ownURL
}

// ResourceAddress returns the host:port that the resource listens on. With Options.Vault it is what the vault's name
// must lead to, for clients that do not use [Server.MTLSTransport].
func (s *Server) ResourceAddress() string { return strings.TrimPrefix(s.ownURL, "https://") }

// CertPool returns the authorities that signed the certificates of the simulator's servers and the client certificates.
func (s *Server) CertPool() *x509.CertPool { return s.authority.pool() }

// Authority returns the certificate of the authority that signs client certificates now, for other servers that are to
// accept them.
func (s *Server) Authority() *x509.Certificate { return s.authority.current().certificate }

// TokenKey returns the public key that the tokens are signed with (ES256), for resources that check them.
func (s *Server) TokenKey() *ecdsa.PublicKey { return &s.authority.tokenKey.PublicKey }

// RotateAuthority has another authority sign client certificates from now on. The simulator's own servers accept those
// of the old one as before; a server that was only told of the new one does not.
func (s *Server) RotateAuthority() { s.authority.rotate() }

// IssueCertificate returns a certificate like those of issuecredential, without counting it: for tests that begin with
// a certificate from an earlier process. It is a new one even with Options.ReissueSame.
func (s *Server) IssueCertificate(public crypto.PublicKey, clientID string) (*x509.Certificate, error) {
	return s.certify(public, clientID, true)
}
