// Chained shows a chain of credentials that works on machines with IMDS v2, with IMDS v1 and on a developer's desk. For
// the first two alone, ManagedIdentityCredential does more: see examples/managed.
//
//	go run ./examples/chained          # a machine with IMDS v2 is simulated: the first credential gets the token
//	go run ./examples/chained -without # one without: the chain goes on to azidentity's credential, which asks IMDS v1
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
	var last []azcore.TokenCredential
	if azure {
		cli, err := azidentity.NewAzureCLICredential(nil)
		if err != nil {
			return err
		}
		last = append(last, announced{cli, "Azure CLI"})
	} else {
		server := imdstest.NewServer(nil)
		defer server.Close()
		options = server.CredentialOptions()
		if without {
			server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})
		}
	}
	v2, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return err
	}
	defer v2.Close()
	v1, err := azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{ClientOptions: options.ClientOptions},
	)
	if err != nil {
		return err
	}
	// On a machine without IMDS v2 the chain goes on after at most 4 s. The credential that worked is the only one asked
	// from then on.
	chain, err := azidentity.NewChainedTokenCredential(
		append([]azcore.TokenCredential{announced{v2, "IMDS v2"}, announced{v1, "IMDS v1"}}, last...), nil,
	)
	if err != nil {
		return err
	}
	start := time.Now()
	token, err := chain.GetToken(
		ctx,
		policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}},
	)
	if err != nil {
		return err
	}
	fmt.Printf(
		"got a token after %s; it expires in %s\n",
		time.Since(start).Round(time.Millisecond),
		time.Until(token.ExpiresOn).Round(time.Second),
	)
	return nil
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
