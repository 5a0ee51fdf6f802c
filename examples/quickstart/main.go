// Quickstart shows a credential at work, and how it heals.
//
//	go run ./examples/quickstart          # needs nothing: IMDS v2, Entra and a resource are simulated on loopback
//	go run ./examples/quickstart -tpm     # the same over a key in a TPM, across processes; needs swtpm: see make test
//	go run ./examples/quickstart -azure   # uses the IMDS of the Azure VM that it runs on
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/azmtls/azmtls/winstore"
)

func main() {
	azure := flag.Bool("azure", false, "use the IMDS of this Azure VM instead of the simulator")
	scope := flag.String("scope", "https://management.azure.com/.default", "with -azure: the scope to get a token for")
	tpm := flag.Bool("tpm", false, "use a key in a TPM, across processes; needs swtpm")
	device := flag.String("device", "", "with -tpm: be one of those processes, on this TPM")
	folder := flag.String("folder", "", "with -device: where its bindings are kept")
	authority := flag.String("authority", "", "with -device: a file with the authority of the token endpoint")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	run := simulated
	switch {
	case *azure:
		run = func(ctx context.Context, out *account) error { return onAzure(ctx, out, *scope) }
	case *tpm && *device != "":
		run = func(ctx context.Context, _ *account) error { return tpmProcess(ctx, *device, *folder, *authority) }
	case *tpm:
		run = overTPM
	}
	out := &account{Writer: os.Stdout, start: time.Now()}
	if err := run(ctx, out); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// identity is one that no machine has: what the quickstart stores must not be taken for a real one's.
const identity = azidentity.ResourceID("/azmtls/examples/quickstart")

// simulated goes through the life of a certificate on loopback: minted, used, refused, replaced.
func simulated(ctx context.Context, out *account) error {
	listen(out, azmtls.EventRecovery, azmtls.EventBinding)
	defer log.SetListener(nil)
	server := imdstest.NewServer(nil)
	defer server.Close()
	out.step("Started IMDS v2, Entra and a protected resource on loopback.")
	if err := forget(ctx, out); err != nil {
		return err
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ID:            identity,
		ClientOptions: server.ClientOptions(), // finds the simulated IMDS
		MTLSTransport: server.MTLSTransport(), // trusts the simulated Entra
		Cache:         &mtls.Cache{},
	})
	if err != nil {
		return err
	}
	defer cred.Close()

	client := cred.Client("https://resource.example/.default")
	out.step("Calling the resource for the first time: no certificate, no token yet.")
	first, err := call(ctx, client, server, out)
	if err != nil {
		return err
	}

	out.step("Calling it again: certificate, token and connection are there.")
	if _, err := call(ctx, client, server, out); err != nil {
		return err
	}

	server.Refuse(first, unknownCA)
	if err := cred.Close(); err != nil { // idle connections: those would go on working
		return err
	}
	out.step("From now on the servers refuse certificate %s (TLS alert unknown_ca).", short(first))

	out.step("Calling the resource as if nothing had happened.")
	second, err := call(ctx, client, server, out)
	if err != nil {
		return err
	}

	out.step("A bearer token for any other client, over mutual TLS with the new certificate %s.", short(second))
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		return err
	}
	out.detail("expires in %s", time.Until(token.ExpiresOn).Round(time.Second))
	out.counts(server)
	if rejections := server.Rejections(); len(rejections) > 0 {
		return fmt.Errorf("the simulator found fault with the requests: %v", rejections)
	}
	out.step("Healed: the refused certificate is gone, one more was minted, and the caller noticed nothing.")
	return nil
}

// forget removes the certificate that an earlier run left in the store of the platform: it is good, but the simulator
// that issued it is gone, and its token endpoint too. One whose key is gone goes by itself when it is looked at.
func forget(ctx context.Context, out *account) error {
	alias := string(identity) + "#att=0"
	for _, store := range []mtls.Store{winstore.Store{}, tpmstore.Store{}} {
		if _, err := store.Load(ctx, alias); err != nil {
			continue // there is none, or this is another system
		}
		out.step("Removing the certificate of an earlier run, whose simulator is gone.")
		if err := store.DeleteAll(ctx, alias); err != nil {
			return err
		}
	}
	return nil
}

// listen shows what the library logs.
func listen(out *account, events ...log.Event) {
	log.SetListener(func(event log.Event, message string) {
		if slices.Contains(events, event) {
			out.detail("%s", message)
		}
	})
}

const unknownCA = 48 // RFC 8446, section 6

// call sends one request to the protected resource and returns the thumbprint of the certificate that the resource saw.
func call(
	ctx context.Context,
	client *http.Client,
	server *imdstest.Server,
	out *account,
) (thumbprint string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.ResourceURL(), nil)
	if err != nil {
		return "", err
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the resource answered %s", resp.Status)
	}
	var caller struct{ Scheme, Certificate string }
	if err := json.NewDecoder(resp.Body).Decode(&caller); err != nil {
		return "", fmt.Errorf("the answer of the resource: %w", err)
	}
	out.detail(
		"=> %s after %s: scheme %s, certificate %s",
		resp.Status,
		time.Since(start).Round(time.Millisecond),
		caller.Scheme,
		short(caller.Certificate),
	)
	out.counts(server)
	return caller.Certificate, nil
}

// onAzure gets a token from the machine's own IMDS.
func onAzure(ctx context.Context, out *account, scope string) error {
	cred, err := azmtls.NewImdsV2MtlsCredential(nil)
	if err != nil {
		return err
	}
	defer cred.Close()
	listen(out, azmtls.EventRecovery, azmtls.EventBinding, azmtls.EventAuthentication)
	defer log.SetListener(nil)
	out.step("Asking IMDS v2 for a certificate, and Entra for a token for %s.", scope)
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return fmt.Errorf(
			"%w\nIs this an Azure VM with IMDS v2 and a system-assigned identity? Without -azure the quickstart needs neither",
			err,
		)
	}
	out.step("Got a token; it expires in %s.", time.Until(token.ExpiresOn).Round(time.Second))
	return nil
}
