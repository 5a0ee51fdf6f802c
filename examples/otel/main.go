// Otel shows one trace from the call of an SDK client down to each request that its token needs, also when a
// certificate goes bad on the way and is replaced.
//
//	go run .
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/Azure/azure-sdk-for-go/sdk/tracing/azotel"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spans, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "otel:", err)
		os.Exit(1)
	}
	fmt.Print(tree(spans))
}

// run calls a resource over a certificate that its server refuses, and returns the spans of the call. A program would
// give its TracerProvider an exporter of its own.
func run(ctx context.Context) ([]sdktrace.ReadOnlySpan, error) {
	exporter := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(exporter))
	defer provider.Shutdown(context.WithoutCancel(ctx))
	tracingProvider := azotel.NewTracingProvider(provider, nil)

	server := imdstest.NewServer(nil)
	defer server.Close()
	server.Inject(imdstest.Fault{
		Endpoint: imdstest.Resource, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1,
	})
	options := server.CredentialOptions()
	options.TracingProvider = tracingProvider
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	if err != nil {
		return nil, err
	}
	defer cred.Close()
	clientOptions := &azcore.ClientOptions{TracingProvider: tracingProvider}
	cred.BindClientOptions(clientOptions)
	if err := newClient(cred, clientOptions, server.ResourceURL()).get(ctx); err != nil {
		return nil, err
	}
	return exporter.Ended(), nil
}

// client is what SDK clients are made of: a pipeline, and a span around each method.
type client struct {
	pipeline runtime.Pipeline
	tracer   tracing.Tracer
	url      string
}

func newClient(cred azcore.TokenCredential, options *azcore.ClientOptions, url string) *client {
	bearer := runtime.NewBearerTokenPolicy(cred, []string{"https://resource.example/.default"}, nil)
	policies := runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}}
	return &client{
		pipeline: runtime.NewPipeline("example", "v1.0.0", policies, options),
		tracer:   options.TracingProvider.NewTracer("example", "v1.0.0"), url: url,
	}
}

func (c *client) get(ctx context.Context) (err error) {
	ctx, end := runtime.StartSpan(ctx, "Client.Get", c.tracer, nil)
	defer func() { end(err) }()
	req, err := runtime.NewRequest(ctx, http.MethodGet, c.url)
	if err != nil {
		return err
	}
	resp, err := c.pipeline.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !runtime.HasStatusCode(resp, http.StatusOK) {
		return runtime.NewResponseError(resp)
	}
	return nil
}

// tree shows the spans in the order of their start, each below its parent, failed ones with what went wrong.
func tree(spans []sdktrace.ReadOnlySpan) string {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	var b strings.Builder
	var below func(parent trace.SpanID, depth int)
	below = func(parent trace.SpanID, depth int) {
		for _, s := range spans {
			if s.Parent().SpanID() != parent {
				continue
			}
			fmt.Fprintf(&b, "%s%s", strings.Repeat("  ", depth), s.Name())
			if s.Status().Code == codes.Error {
				fmt.Fprintf(&b, ": %s", s.Status().Description)
			}
			b.WriteString("\n")
			below(s.SpanContext().SpanID(), depth+1)
		}
	}
	below(trace.SpanID{}, 0)
	return b.String()
}
