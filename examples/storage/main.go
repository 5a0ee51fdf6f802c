// Storage uploads a blob and reads it back with proof-of-possession tokens.
//
//	go run .                                                # IMDS, Entra and a storage account of one blob are simulated
//	go run . -account https://NAME.blob.core.windows.net    # on an Azure VM
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
)

func main() {
	account := flag.String("account", "", "URL of a storage account; empty: simulated")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *account); err != nil {
		fmt.Fprintln(os.Stderr, "storage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, account string) error {
	options := &azmtls.ImdsV2MtlsCredentialOptions{}
	if account == "" {
		server := imdstest.NewServer(&imdstest.Options{ResourceHandler: &oneBlob{}})
		defer server.Close()
		options = server.CredentialOptions()
		account = server.ResourceURL()
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return err
	}
	defer cred.Close()

	clientOptions := azblob.ClientOptions{}
	cred.BindClientOptions(&clientOptions.ClientOptions)
	client, err := azblob.NewClient(account, cred, &clientOptions)
	if err != nil {
		return err
	}
	text := strings.NewReader("bound to this machine")
	if _, err := client.UploadStream(ctx, "examples", "hello.txt", text, nil); err != nil {
		return err
	}
	resp, err := client.DownloadStream(ctx, "examples", "hello.txt", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	fmt.Printf("read back: %s\n", data)
	return nil
}

// oneBlob is as much of a storage account as this example needs. imdstest has checked token and certificate before.
type oneBlob struct {
	mu   sync.Mutex
	data []byte
}

func (b *oneBlob) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	caller, _ := imdstest.CallerFromContext(r.Context())
	fmt.Printf("%s with a token of scheme %s\n", r.Method, caller.Scheme)
	switch r.Method {
	case http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.data = data
		w.WriteHeader(http.StatusCreated)
	case http.MethodGet:
		_, _ = w.Write(b.data)
	default:
		http.Error(w, "one blob, PUT and GET", http.StatusMethodNotAllowed)
	}
}
