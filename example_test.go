package azmtls_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
)

// One line for every machine: on this one, which a simulator stands in for, IMDS knows no version 2 yet.
func ExampleNewManagedIdentityCredential() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})

	options := azmtls.ManagedIdentityCredentialOptions(*server.CredentialOptions())
	cred, err := azmtls.NewManagedIdentityCredential(&options)
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	token, err := cred.GetToken(
		context.Background(),
		policy.TokenRequestOptions{Scopes: []string{"https://one.example/.default"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("got a token:", token.Token != "")
	if fallback := cred.Status().Fallback; fallback != nil {
		fmt.Println("IMDS v2 does not serve:", fallback.Cause)
	}
	// Output:
	// got a token: true
	// IMDS v2 does not serve: ImdsV2MtlsCredential: IMDS at http://169.254.169.254 has no version 2: it answered 404 to getplatformmetadata. See https://github.com/azmtls/azmtls/blob/main/TROUBLESHOOTING.md#no-version-2
}

// A client that is bound to it sends proof of possession while IMDS v2 serves, and bearer tokens while azidentity does.
func ExampleManagedIdentityCredential_BindClientOptions() {
	cred, err := azmtls.NewManagedIdentityCredential(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	options := azcore.ClientOptions{} // that of azblob, azsecrets, ...
	cred.BindClientOptions(&options)
	fmt.Println("policies added:", len(options.PerCallPolicies)+len(options.PerRetryPolicies))
	// Output: policies added: 3
}

// Where azidentity serves, there are no bound tokens. The error says so, and why IMDS v2 does not serve.
func ExampleManagedIdentityCredential_GetBoundToken() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})
	options := azmtls.ManagedIdentityCredentialOptions(*server.CredentialOptions())
	cred, err := azmtls.NewManagedIdentityCredential(&options)
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	_, _, err = cred.GetBoundToken(
		context.Background(),
		policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}},
	)
	fmt.Println("no bound tokens here:", errors.Is(err, azmtls.ErrTokenBindingUnsupported))
	// Output: no bound tokens here: true
}

// On an Azure VM nil options are enough. Here a simulator stands in for the VM.
func ExampleNewImdsV2MtlsCredential() {
	server := imdstest.NewServer(nil)
	defer server.Close()

	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	token, err := cred.GetToken(
		context.Background(),
		policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("got a token:", token.Token != "")
	// Output: got a token: true
}

// In a chain, machines without IMDS v2 go on to the next credential. This one, which a simulator stands in for, has
// version 1 alone.
func ExampleImdsV2MtlsCredential_GetToken() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})

	first, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	second, err := azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{ClientOptions: server.ClientOptions()},
	)
	if err != nil {
		log.Fatal(err)
	}
	chain, err := azidentity.NewChainedTokenCredential([]azcore.TokenCredential{first, second}, nil)
	if err != nil {
		log.Fatal(err)
	}
	token, err := chain.GetToken(
		context.Background(),
		policy.TokenRequestOptions{Scopes: []string{"https://chained.example/.default"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("got a token:", token.Token != "", "from IMDS v1:", server.Counts().V1Issued == 1)
	// Output: got a token: true from IMDS v1: true
}

// A server that speaks neither HTTP nor anything that this library knows refused the certificate: a gRPC service, say.
func ExampleImdsV2MtlsCredential_RemoveBadCert() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	ctx, opts := context.Background(), policy.TokenRequestOptions{Scopes: []string{"https://service.example/.default"}}
	_, refused, err := cred.GetBoundToken(ctx, opts)
	if err != nil {
		log.Fatal(err)
	}
	again := cred.RemoveBadCert(ctx, &mtls.Refusal{
		Binding: refused, Host: "service.example:443",
		Err: errors.New("the service says that it does not know the certificate"),
	})
	_, fresh, err := cred.GetBoundToken(ctx, opts)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("evicted:", again, "another certificate:", fresh.Thumbprint() != refused.Thumbprint())
	// Output: evicted: true another certificate: true
}

// A bound client sends proof-of-possession tokens.
func ExampleImdsV2MtlsCredential_BindClientOptions() {
	cred, err := azmtls.NewImdsV2MtlsCredential(nil)
	if err != nil {
		log.Fatal(err)
	}
	options := azcore.ClientOptions{} // that of azblob, azsecrets, ...
	cred.BindClientOptions(&options)
	fmt.Println("policies added:", len(options.PerCallPolicies)+len(options.PerRetryPolicies))
	// Output: policies added: 3
}

// For what is neither an SDK client nor net/http there are token and certificate together: here, for a TLS
// configuration.
func ExampleImdsV2MtlsCredential_GetBoundToken() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	token, binding, err := cred.GetBoundToken(
		context.Background(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{binding.Certificate}} // of the connections
	authorization := "mtls_pop " + token.Token                                  // of the calls on them
	fmt.Println(len(config.Certificates), "certificate and a token:", authorization != "mtls_pop ")
	// Output: 1 certificate and a token: true
}

// Status is for whoever is on call, and for dashboards.
func ExampleImdsV2MtlsCredential_Status() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	ctx, scope := context.Background(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	for range 3 {
		if _, err := cred.GetToken(ctx, scope); err != nil {
			log.Fatal(err)
		}
	}
	status := cred.Status()
	fmt.Println("key:", status.Binding.Strength, "minted:", status.Binding.Minted, "last error:", status.LastError)
	counters, err := json.Marshal(status.Counters)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(counters))
	// Output:
	// key: software minted: true last error: <nil>
	// {"cached_answers":2,"tokens":1,"refreshes":0,"mints":1,"loads":0,"evictions":0,"recoveries":0}
}

// A binding that somebody no longer trusts is replaced without waiting for a refusal.
func ExampleImdsV2MtlsCredential_Renew() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	fmt.Println(cred.Renew(context.Background()), cred.Status().Counters.Mints)
	// The next one costs a unit of the budget, which comes a second later.
	fmt.Println(cred.Renew(context.Background()) != nil, cred.Status().TokenBudget.Available)
	// Output:
	// <nil> 1
	// true false
}

// An Observer gets every step in values. Here it is a logger; for metrics, switch on Step.
func ExampleLogEvents() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == "step" || a.Key == slog.LevelKey {
				return a
			}
			return slog.Attr{} // what differs from run to run
		},
	}))
	options := server.CredentialOptions()
	options.Observer = azmtls.LogEvents(logger)
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	scope := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	if _, err := cred.GetToken(context.Background(), scope); err != nil {
		log.Fatal(err)
	}
	// Output:
	// level=INFO event.step=mint
	// level=INFO event.step=token
}

// Without an SDK client, Client gives an http.Client that gets, binds and heals.
func ExampleImdsV2MtlsCredential_Client() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	resp, err := cred.Client("https://resource.example/.default").Get(server.ResourceURL())
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode == http.StatusOK)
	// Output: true
}

// The error says what Entra said and what recovery did.
func ExampleAuthenticationError() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(
		imdstest.Fault{
			Endpoint: imdstest.Token,
			Do:       imdstest.EntraError{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"},
		},
	)
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	_, err = cred.GetToken(
		context.Background(),
		policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}},
	)
	var failure *azmtls.AuthenticationError
	if errors.As(err, &failure) {
		fmt.Println(failure.AADSTS)
		fmt.Println(failure.Recovery)
	}
	// Output:
	// AADSTS700016
	// none, the binding was not refused
}
