package main

import (
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// fixture is a service and a client.
func fixture(t *testing.T) (*imdstest.Server, *service, *client) {
	// A token serves on after a renewal; the next one, here after 2 s, is bound to the new certificate.
	machine := imdstest.New(t, &imdstest.Options{TokenLifetime: time.Minute, RefreshIn: 2 * time.Second})
	s, c, err := pair(machine, machine.CredentialOptions())
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	t.Cleanup(func() { require.NoError(t, c.cred.Close()) })
	return machine, s, c
}

// 50 callers go on calling while the certificate is renewed and while the service refuses the one in use. No call
// fails, and each refusal costs one mint.
func TestNoCallFails(t *testing.T) {
	machine, s, c := fixture(t)
	require.NoError(t, c.check(t.Context()))
	_, first, err := c.cred.GetBoundToken(t.Context(), scope(c))
	require.NoError(t, err)

	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := c.check(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	end := sync.OnceFunc(func() {
		close(stop)
		callers.Wait()
	})
	defer end()
	served := func(n int) func() bool {
		return func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.served) == n
		}
	}
	require.NoError(t, c.cred.Renew(t.Context()))
	require.Eventually(t, served(2), 30*time.Second, 10*time.Millisecond, "over the renewed certificate")
	_, second, err := c.cred.GetBoundToken(t.Context(), scope(c))
	require.NoError(t, err)
	require.NotEqual(t, first.Thumbprint(), second.Thumbprint())
	s.refuse(second.Thumbprint())
	require.Eventually(t, served(3), 30*time.Second, 10*time.Millisecond, "over a third")
	end()
	require.Equal(t, 3, machine.Counts().Issued)
}

// The service takes a token only over its own certificate.
func TestTokenOfAnotherCertificate(t *testing.T) {
	_, s, c := fixture(t)
	_, other, thief := fixture(t)
	require.NoError(t, thief.check(t.Context()))
	other.Stop()
	_, binding, err := thief.cred.GetBoundToken(t.Context(), scope(thief))
	require.NoError(t, err)
	token, _, err := c.cred.GetBoundToken(t.Context(), scope(c))
	require.NoError(t, err)

	s.clients.AddCert(binding.Certificate.Leaf) // the service trusts the thief's certificate
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{binding.Certificate}, RootCAs: c.servers,
	})))
	require.NoError(t, err)
	defer conn.Close()
	service := healthpb.NewHealthClient(conn)
	_, err = service.Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.PerRPCCredentials(bound(token.Token)))
	require.ErrorContains(t, err, "bound to another certificate")
}

func scope(c *client) policy.TokenRequestOptions {
	return policy.TokenRequestOptions{Scopes: []string{c.scope}}
}
