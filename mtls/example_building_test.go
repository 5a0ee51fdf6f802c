package mtls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
)

const (
	exampleClient   = "11111111-2222-3333-4444-555555555555"
	exampleEndpoint = "https://eus.mtlsauth.microsoft.com/99999999-8888-7777-6666-555555555555"
)

// exampleBinding returns a binding as a mint would: a key, and a certificate for it, which a simulator of IMDS issues
// here.
func exampleBinding(ctx context.Context, server *imdstest.Server) (*mtls.Binding, error) {
	key, err := mtls.SoftwareKeys{}.Key(ctx)
	if err != nil {
		return nil, err
	}
	leaf, err := server.IssueCertificate(key.Public(), exampleClient)
	if err != nil {
		return nil, err
	}
	return mtls.NewBinding(leaf, key, exampleEndpoint, exampleClient)
}

// exampleResource is a server that asks for a certificate and says whose it is. It refuses what refuse returns an
// error for.
func exampleResource(refuse func() error) *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{
		ClientAuth:            tls.RequireAnyClientCert,
		VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return refuse() },
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	return server
}

// trust returns a template for connections to the server, whose certificate is its own.
func trust(server *httptest.Server) *http.Transport {
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
}

// A Transport presents one binding, to any client of net/http. That a server refused it is a *Refusal, told from all
// that says nothing of it.
func ExampleTransport() {
	imds := imdstest.NewServer(nil)
	defer imds.Close()
	var refused atomic.Bool
	resource := exampleResource(func() error {
		if refused.Load() {
			return errors.New("revoked")
		}
		return nil
	})
	defer resource.Close()
	b, err := exampleBinding(context.Background(), imds)
	if err != nil {
		log.Fatal(err)
	}
	transport := mtls.NewTransport(trust(resource), b)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	resp, err := client.Get(resource.URL)
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close()
	fmt.Println(resp.Status)

	refused.Store(true)
	transport.CloseIdleConnections()
	_, err = client.Get(resource.URL)
	if refusal, ok := errors.AsType[*mtls.Refusal](err); ok {
		fmt.Println("refused:", refusal.Binding == b)
	}
	// Output:
	// 200 OK
	// refused: true
}

// resolve gives a request its connections: those of the binding in use.
type resolve struct {
	cache    *mtls.Cache
	source   mtls.Source
	template *http.Transport
}

type connections struct{}

func (p resolve) Do(req *policy.Request) (*http.Response, error) {
	b, err := p.cache.GetOrMint(req.Raw().Context(), p.source)
	if err != nil {
		return nil, err
	}
	transport := mtls.NewTransport(p.template, b) // a program keeps one for each binding
	defer transport.CloseIdleConnections()
	return req.WithContext(context.WithValue(req.Raw().Context(), connections{}, transport)).Next()
}

// send sends a request over the connections that resolve gave it.
type send struct{}

func (send) Do(req *http.Request) (*http.Response, error) {
	return req.Context().Value(connections{}).(*mtls.Transport).Do(req)
}

// A RecoveryPolicy has a refused binding evicted by a Cache, and the rest of an azcore pipeline run once more, with
// another one.
func ExampleRecoveryPolicy() {
	imds := imdstest.NewServer(nil)
	defer imds.Close()
	var handshakes atomic.Int32
	resource := exampleResource(func() error {
		if handshakes.Add(1) == 1 {
			return errors.New("revoked")
		}
		return nil
	})
	defer resource.Close()

	minted := 0
	cache := &mtls.Cache{}
	source := mtls.Source{
		Alias: "example",
		Mint: func(ctx context.Context, _ mtls.MintRequest) (*mtls.Binding, error) {
			minted++
			return exampleBinding(ctx, imds)
		},
	}
	recovery := mtls.NewRecoveryPolicy(func(ctx context.Context, refusal *mtls.Refusal) (again bool) {
		return cache.RemoveBadCert(ctx, source, refusal)
	})
	pipeline := runtime.NewPipeline("example", "v1", runtime.PipelineOptions{
		PerCall: []policy.Policy{recovery, resolve{cache, source, trust(resource)}}, // above azcore's retry policy
	}, &policy.ClientOptions{Transport: send{}})
	req, err := runtime.NewRequest(context.Background(), http.MethodGet, resource.URL)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := pipeline.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Status, "with binding number", minted)
	// Output: 200 OK with binding number 2
}
