// Keyvault reads a secret with a proof-of-possession token.
//
//	go run .                                                       # IMDS, Entra and a vault of one secret are simulated
//	go run . -vault https://NAME.vault.azure.net -secret NAME      # on an Azure VM
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
)

func main() {
	vault := flag.String("vault", "", "URL of a vault; empty: simulated")
	secret := flag.String("secret", "example", "name of the secret")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *vault, *secret); err != nil {
		fmt.Fprintln(os.Stderr, "keyvault:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, vault, name string) error {
	options := &azmtls.ImdsV2MtlsCredentialOptions{}
	clientOptions := azsecrets.ClientOptions{}
	if vault == "" {
		server := imdstest.NewServer(&imdstest.Options{
			Vault: "my.vault.azure.net", ResourceHandler: http.HandlerFunc(oneSecret),
		})
		defer server.Close()
		options = server.CredentialOptions()
		vault = server.ResourceURL()
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return err
	}
	defer cred.Close()

	cred.BindClientOptions(&clientOptions.ClientOptions)
	client, err := azsecrets.NewClient(vault, cred, &clientOptions)
	if err != nil {
		return err
	}
	secret, err := client.GetSecret(ctx, name, "", nil)
	if err != nil {
		return err
	}
	fmt.Printf("read the secret %s of %d characters\n", name, len(*secret.Value))
	return nil
}

// oneSecret is as much of a vault as this example needs. imdstest has sent the challenge and checked token and
// certificate.
func oneSecret(w http.ResponseWriter, r *http.Request) {
	caller, _ := imdstest.CallerFromContext(r.Context())
	fmt.Printf("%s with a token of scheme %s\n", r.Method, caller.Scheme)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"value":"forty-two","id":"https://my.vault.azure.net/secrets/example/1"}`)
}
