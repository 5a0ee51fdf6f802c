// Quickstart shows a credential at work, and how it heals.
//
//	go run ./examples/quickstart          # needs nothing: IMDS v2, Entra and a resource are simulated on loopback
//	go run ./examples/quickstart -azure   # uses the IMDS of the Azure VM that it runs on
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
)

func main() {
	azure := flag.Bool("azure", false, "use the IMDS of this Azure VM instead of the simulator")
	scope := flag.String("scope", "https://management.azure.com/.default", "with -azure: the scope to get a token for")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	run := simulated
	if *azure {
		run = func(ctx context.Context, out *account) error { return onAzure(ctx, out, *scope) }
	}
	out := &account{Writer: os.Stdout, start: time.Now()}
	if err := run(ctx, out); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// simulated goes through the life of a certificate on loopback: minted, used, refused, replaced.
func simulated(ctx context.Context, out *account) error {
	server := imdstest.NewServer(nil)
	defer server.Close()
	store := &countingStore{}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: server.ClientOptions(), // finds the simulated IMDS
		MTLSTransport: server.MTLSTransport(), // trusts the simulated Entra
		Store:         store,
		Cache:         &mtls.Cache{},
	})
	if err != nil {
		return err
	}
	defer cred.Close()
	out.step("Started IMDS v2, Entra and a protected resource on loopback.")

	log.SetListener(func(event log.Event, message string) {
		if event == azmtls.EventRecovery || event == azmtls.EventBinding {
			out.detail("%s", message)
		}
	})
	defer log.SetListener(nil)

	client := cred.Client("https://resource.example/.default")
	out.step("Calling the resource for the first time: no certificate, no token yet.")
	if err := call(ctx, client, server, out); err != nil {
		return err
	}
	out.counts(server, store)

	out.step("Calling it again: certificate, token and connection are there.")
	if err := call(ctx, client, server, out); err != nil {
		return err
	}
	out.counts(server, store)

	refused := store.latest.Thumbprint()
	server.Refuse(refused, unknownCA)
	if err := cred.Close(); err != nil { // idle connections: those would go on working
		return err
	}
	out.step("From now on the servers refuse certificate %s (TLS alert unknown_ca).", mtls.Mask(refused))

	out.step("Calling the resource as if nothing had happened.")
	if err := call(ctx, client, server, out); err != nil {
		return err
	}
	out.counts(server, store)

	out.step("A bearer token for any other client, over mutual TLS with the new certificate %s.", mtls.Mask(store.latest.Thumbprint()))
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		return err
	}
	out.detail("expires in %s", time.Until(token.ExpiresOn).Round(time.Second))
	out.counts(server, store)
	if rejections := server.Rejections(); len(rejections) > 0 {
		return fmt.Errorf("the simulator found fault with the requests: %v", rejections)
	}
	out.step("Healed: the refused certificate is gone, one more was minted, and the caller noticed nothing.")
	return nil
}

const unknownCA = 48 // RFC 8446, section 6

// call sends one request to the protected resource.
func call(ctx context.Context, client *http.Client, server *imdstest.Server, out *account) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.ResourceURL(), nil)
	if err != nil {
		return err
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	out.detail("=> %s after %s: %s", resp.Status, time.Since(start).Round(time.Millisecond), strings.TrimSpace(string(body)))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the resource answered %s", resp.Status)
	}
	return nil
}

// onAzure gets a token from the machine's own IMDS.
func onAzure(ctx context.Context, out *account, scope string) error {
	cred, err := azmtls.NewImdsV2MtlsCredential(nil)
	if err != nil {
		return err
	}
	defer cred.Close()
	log.SetListener(func(event log.Event, message string) {
		if strings.HasPrefix(string(event), "azmtls.") {
			out.detail("%s", message)
		}
	})
	defer log.SetListener(nil)
	out.step("Asking IMDS v2 for a certificate, and Entra for a token for %s.", scope)
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return fmt.Errorf("%w\nIs this an Azure VM with IMDS v2 and a system-assigned identity? Without -azure the quickstart needs neither", err)
	}
	out.step("Got a token; it expires in %s.", time.Until(token.ExpiresOn).Round(time.Second))
	return nil
}
