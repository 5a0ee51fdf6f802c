// Prometheus shows a credential's metrics: what it did, how long it took, when its certificate ends.
//
//	go run .                          # one heal against a simulated machine, then the metrics
//	go run . -listen 127.0.0.1:9464   # serves them at /metrics until it is interrupted
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	listen := flag.String("listen", "", "address to serve /metrics at; empty: print them once")
	flag.Parse()
	if err := run(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

func run(listen string) error {
	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1})
	cred, metrics, err := instrumented(server.CredentialOptions())
	if err != nil {
		return err
	}
	defer cred.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 3 {
		_, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
		if err != nil {
			return err
		}
	}
	if listen != "" {
		fmt.Println("http://" + listen + "/metrics")
		http.Handle("/metrics", metrics)
		return http.ListenAndServe(listen, nil)
	}
	scraped := httptest.NewRecorder()
	metrics.ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scraped.Body.String()) {
		if strings.HasPrefix(line, "azmtls_") && !strings.Contains(line, "_bucket") {
			_, _ = io.WriteString(os.Stdout, line)
		}
	}
	return nil
}

// instrumented is what a program does: a credential whose metrics a handler serves.
func instrumented(options *azmtls.ImdsV2MtlsCredentialOptions) (*azmtls.ImdsV2MtlsCredential, http.Handler, error) {
	c := newCollector("example")
	options.Observer = c.observe
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return nil, nil, err
	}
	c.watch(cred)
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		return nil, nil, err
	}
	return cred, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), nil
}
