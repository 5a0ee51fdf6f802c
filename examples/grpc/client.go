package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/mtls"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// client calls a service with proof-of-possession tokens. A token is of use on connections of its own certificate
// only, so there is a connection for the binding in use, and calls that began on the one before end there.
type client struct {
	cred    *azmtls.ImdsV2MtlsCredential
	scope   string
	address string
	servers *x509.CertPool

	mu   sync.Mutex
	link *link
}

// link is a connection that presents one binding.
type link struct {
	binding *mtls.Binding
	conn    *grpc.ClientConn
	calls   sync.WaitGroup
}

// check calls the service. If that refuses the certificate, its binding is evicted, and the call made once more over
// another one. Of callers who fail together the first evicts, the others are told that it is gone.
func (c *client) check(ctx context.Context) error {
	used, err := c.call(ctx)
	if used == nil || !refusesCertificate(err) {
		return err
	}
	if !c.cred.RemoveBadCert(ctx, &mtls.Refusal{Binding: used, Host: c.address, Err: err}) {
		return err
	}
	_, err = c.call(ctx)
	return err
}

// call makes one call, and returns the binding that it was made with.
func (c *client) call(ctx context.Context) (*mtls.Binding, error) {
	token, binding, err := c.cred.GetBoundToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
	if err != nil {
		return nil, err
	}
	l, err := c.connect(binding)
	if err != nil {
		return nil, err
	}
	defer l.calls.Done()
	service := healthpb.NewHealthClient(l.conn)
	_, err = service.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.PerRPCCredentials(bound(token.Token)))
	return binding, err
}

// connect returns the connection of a binding, a new one if the latest was for another. The caller ends its call.
func (c *client) connect(binding *mtls.Binding) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil || c.link.binding.Thumbprint() != binding.Thumbprint() {
		conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{binding.Certificate}, RootCAs: c.servers, MinVersion: tls.VersionTLS13,
		})))
		if err != nil {
			return nil, err
		}
		c.close()
		c.link = &link{binding: binding, conn: conn}
	}
	c.link.calls.Add(1)
	return c.link, nil
}

// close closes the latest connection when its calls have ended.
func (c *client) close() {
	if old := c.link; old != nil {
		go func() {
			old.calls.Wait()
			_ = old.conn.Close()
		}()
	}
}

// refusesCertificate reports whether an error is about the certificate: the service's word for it, or a TLS alert.
func refusesCertificate(err error) bool {
	s, ok := status.FromError(err)
	return ok && (s.Code() == codes.Unauthenticated && s.Message() == errCertificate.Error() ||
		s.Code() == codes.Unavailable && strings.Contains(s.Message(), "remote error: tls:"))
}

// bound is a token for one call.
type bound string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bound) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "mtls_pop " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the token goes over TLS only.
func (bound) RequireTransportSecurity() bool { return true }
