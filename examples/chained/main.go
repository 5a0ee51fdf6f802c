// Chained shows a chain of credentials that works on machines with IMDS v2, with IMDS v1 and on a developer's desk.
//
//	go run ./examples/chained          # IMDS v2 is simulated: the first credential gets the token
//	go run ./examples/chained -without # IMDS v2 is not there: the chain goes on, here to a credential of the example's own
//	go run ./examples/chained -azure   # what a program would do: IMDS v2, IMDS v1, Azure CLI
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
)

func main() {
	azure := flag.Bool("azure", false, "use the real credentials of this machine")
	without := flag.Bool("without", false, "simulate a machine without IMDS v2")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *azure, *without); err != nil {
		fmt.Fprintln(os.Stderr, "chained:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, azure, without bool) error {
	options := &azmtls.ImdsV2MtlsCredentialOptions{}
	if !azure {
		server := imdstest.NewServer(nil)
		defer server.Close()
		options.ClientOptions, options.MTLSTransport = server.ClientOptions(), server.MTLSTransport()
		options.Store = mtls.NoStore{} // on Windows: not the user's, where a real certificate may lie
		if without {
			server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})
		}
	}
	v2, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return err
	}
	defer v2.Close()
	chain, err := newChain(v2, azure)
	if err != nil {
		return err
	}
	start := time.Now()
	token, err := chain.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}})
	if err != nil {
		return err
	}
	fmt.Printf("got a token after %s; it expires in %s\n", time.Since(start).Round(time.Millisecond), time.Until(token.ExpiresOn).Round(time.Second))
	return nil
}

// newChain returns a credential that tries IMDS v2 first. On a machine without it, the chain goes on after at most 4 s, and the
// credential that worked is asked first from then on.
func newChain(v2 azcore.TokenCredential, azure bool) (azcore.TokenCredential, error) {
	if !azure {
		return azidentity.NewChainedTokenCredential([]azcore.TokenCredential{announced{v2, "IMDS v2"}, announced{standIn{}, "the stand-in"}}, nil)
	}
	v1, err := azidentity.NewManagedIdentityCredential(nil)
	if err != nil {
		return nil, err
	}
	cli, err := azidentity.NewAzureCLICredential(nil)
	if err != nil {
		return nil, err
	}
	return azidentity.NewChainedTokenCredential([]azcore.TokenCredential{announced{v2, "IMDS v2"}, announced{v1, "IMDS v1"}, announced{cli, "Azure CLI"}}, nil)
}

// announced says how a credential of the chain fared.
type announced struct {
	azcore.TokenCredential
	name string
}

func (a announced) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := a.TokenCredential.GetToken(ctx, options)
	switch failure, failed := errors.AsType[*azmtls.AuthenticationError](err); {
	case err == nil:
		fmt.Printf("%s: a token\n", a.name)
	case failed: // ends the chain: another credential would hide it
		fmt.Printf("%s: %v\n", a.name, failure)
	default:
		fmt.Printf("%s: not here: %v\n", a.name, err)
	}
	return token, err
}

// standIn is the next credential of the simulated chain.
type standIn struct{}

func (standIn) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "stand-in", ExpiresOn: time.Now().Add(time.Hour)}, nil
}
