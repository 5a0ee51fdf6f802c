package imdstest_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
)

// A connection that is lost costs no token. A test would call New, which closes the server with the test.
func ExampleServer_CredentialOptions() {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Reset{}, Times: 1})

	scope := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	_, err = cred.GetToken(context.Background(), scope)
	counts := server.Counts()
	fmt.Println(err, "requests:", counts.Token, "certificates:", counts.Issued, "rejections:", len(server.Rejections()))
	// Output: <nil> requests: 2 certificates: 1 rejections: 0
}

// A week passes in no time.
func ExampleClock() {
	clock := imdstest.NewClock(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	server := imdstest.NewServer(&imdstest.Options{Clock: clock})
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
	if err != nil {
		log.Fatal(err)
	}
	defer cred.Close()
	scope := policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}
	for range 2 {
		token, err := cred.GetToken(context.Background(), scope)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("a token until", token.ExpiresOn.Format(time.DateTime), "certificates so far:", server.Counts().Issued)
		clock.Advance(7 * 24 * time.Hour)
	}
	// Output:
	// a token until 2026-12-01 01:00:00 certificates so far: 1
	// a token until 2026-12-08 01:00:00 certificates so far: 2
}
