// Grpc calls a gRPC service with proof-of-possession tokens over mutual TLS, through a renewal of the certificate and
// through one that the service refuses.
//
//	go run .
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
)

const audience = "https://service.example"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "grpc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	machine := imdstest.NewServer(nil)
	defer machine.Close()
	s, c, err := pair(machine, machine.CredentialOptions())
	if err != nil {
		return err
	}
	defer s.Stop()
	defer c.cred.Close()
	report := func(what string) error {
		if err := c.check(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		_, binding, err := c.cred.GetBoundToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
		if err != nil {
			return err
		}
		fmt.Printf("%s: served, over certificate %.6s…\n", what, binding.Thumbprint())
		return nil
	}
	if err := report("the first call"); err != nil {
		return err
	}
	_, binding, err := c.cred.GetBoundToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
	if err != nil {
		return err
	}
	s.refuse(binding.Thumbprint())
	return report("the service refuses that certificate")
}

// pair returns a service that trusts a machine's authority, and a client that has its credential there.
func pair(machine *imdstest.Server, options *azmtls.ImdsV2MtlsCredentialOptions) (*service, *client, error) {
	own, servers, err := ownCertificate()
	if err != nil {
		return nil, nil, err
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return nil, nil, err
	}
	s, err := serve(machine.CertPool(), own, machine.TokenKey(), audience)
	if err != nil {
		return nil, nil, err
	}
	return s, &client{cred: cred, scope: audience + "/.default", address: s.address, servers: servers}, nil
}
