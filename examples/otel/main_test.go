package main

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

const minted = `  ImdsV2MtlsCredential.GetToken
    ImdsV2MtlsCredential.mint
      ImdsV2MtlsCredential.metadata
        HTTP GET
      ImdsV2MtlsCredential.key
      ImdsV2MtlsCredential.issue
        HTTP POST
    ImdsV2MtlsCredential.token
      HTTP POST
`

// One trace holds all that the call of a client needed, the heal included. Every span has ended.
func TestOneTrace(t *testing.T) {
	spans, err := run(t.Context())
	require.NoError(t, err)
	for _, s := range spans {
		require.Equal(t, spans[0].SpanContext().TraceID(), s.SpanContext().TraceID(), s.Name())
	}
	got := regexp.MustCompile(`: mtls: .*`).ReplaceAllString(tree(spans), ": refused")
	// The key is made beside the metadata request; either may begin first.
	first := regexp.MustCompile(`(?m)^( +ImdsV2MtlsCredential.key\n)( +ImdsV2MtlsCredential.metadata\n +HTTP GET\n)`)
	got = first.ReplaceAllString(got, "$2$1")
	healed := "  HTTP GET: refused\n  ImdsV2MtlsCredential.recover\n" + minted + "  HTTP GET\n"
	require.Equal(t, "Client.Get\n"+minted+healed, got)
}
