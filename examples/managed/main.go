// Managed shows the one line that works on every machine: IMDS v2 where it can be had, IMDS v1 meanwhile and elsewhere.
//
//	go run ./examples/managed        # needs nothing: a virtual machine is simulated on loopback
//	go run ./examples/managed -azure # uses what the machine that it runs on has
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
)

func main() {
	azure := flag.Bool("azure", false, "use the identity of this machine instead of the simulator")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := simulated
	if *azure {
		run = onAzure
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "managed:", err)
		os.Exit(1)
	}
}

// onAzure is what a program does.
func onAzure(ctx context.Context) error {
	cred, err := azmtls.NewManagedIdentityCredential(nil)
	if err != nil {
		return err
	}
	defer cred.Close()
	return show(ctx, cred, "https://management.azure.com/.default")
}

// simulated goes through what happens on a machine whose IMDS does not certify its key at first.
func simulated(ctx context.Context) error {
	server := imdstest.NewServer(&imdstest.Options{TokenLifetime: 24 * time.Hour})
	defer server.Close()
	certifiesNothing := imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: http.StatusForbidden}}
	remove := server.Inject(certifiesNothing)
	options := azmtls.ManagedIdentityCredentialOptions(*server.CredentialOptions())
	cred, err := azmtls.NewManagedIdentityCredential(&options)
	if err != nil {
		return err
	}
	defer cred.Close()
	fmt.Println("IMDS v2 certifies no key of this machine:")
	if err := show(ctx, cred, "https://one.example/.default"); err != nil {
		return err
	}

	fmt.Println("\nNow it does. Half an hour later a call would find out; Renew finds out now:")
	remove()
	for range 10 { // IMDS v2 was refused once, and is not asked again within a second
		if err = cred.Renew(ctx); err == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	if err := show(ctx, cred, "https://two.example/.default"); err != nil {
		return err
	}
	for cred.Status().Fallback != nil { // the call has IMDS v2 asked in the background
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("\nAnd the next call:")
	if err := show(ctx, cred, "https://three.example/.default"); err != nil {
		return err
	}
	counts := server.Counts()
	fmt.Printf("\nTokens of IMDS v1: %d. Over mutual TLS: %d.\n", counts.V1Issued, counts.TokenIssued)
	return nil
}

// show gets a token and says whom from.
func show(ctx context.Context, cred *azmtls.ManagedIdentityCredential, scope string) error {
	begin := time.Now()
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return err
	}
	from := "IMDS v2, over mutual TLS"
	status := cred.Status()
	if status.Fallback != nil {
		from = "azidentity, since " + status.Fallback.Cause
	}
	fmt.Printf("  got a token after %s, to be refreshed in %s\n  from %s\n",
		time.Since(begin).Round(time.Millisecond), time.Until(token.RefreshOn).Round(time.Minute), from)
	return nil
}
