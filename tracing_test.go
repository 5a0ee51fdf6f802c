package azmtls_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// recorder is a tracer that keeps its spans.
type recorder struct {
	mu    sync.Mutex
	spans []*span
}

type span struct {
	recorder *recorder
	name     string
	parent   *span
	ended    bool
	failed   string
	attrs    map[string]any
}

type spanKey struct{}

func (r *recorder) provider() tracing.Provider {
	return tracing.NewProvider(func(string, string) tracing.Tracer {
		start := func(ctx context.Context, name string, _ *tracing.SpanOptions) (context.Context, tracing.Span) {
			s := r.start(ctx, name)
			return context.WithValue(ctx, spanKey{}, s), s.span()
		}
		return tracing.NewTracer(start, &tracing.TracerOptions{SpanFromContext: func(ctx context.Context) tracing.Span {
			if s, ok := ctx.Value(spanKey{}).(*span); ok {
				return s.span()
			}
			return tracing.Span{}
		}})
	}, nil)
}

func (r *recorder) start(ctx context.Context, name string) *span {
	r.mu.Lock()
	defer r.mu.Unlock()
	parent, _ := ctx.Value(spanKey{}).(*span)
	s := &span{recorder: r, name: name, parent: parent, attrs: map[string]any{}}
	r.spans = append(r.spans, s)
	return s
}

func (s *span) span() tracing.Span {
	locked := func(f func()) {
		s.recorder.mu.Lock()
		defer s.recorder.mu.Unlock()
		f()
	}
	return tracing.NewSpan(tracing.SpanImpl{
		End: func() { locked(func() { s.ended = true }) },
		SetAttributes: func(attrs ...tracing.Attribute) {
			locked(func() {
				for _, a := range attrs {
					s.attrs[a.Key] = a.Value
				}
			})
		},
		SetStatus: func(status tracing.SpanStatus, text string) {
			if status == tracing.SpanStatusError {
				locked(func() { s.failed = text })
			}
		},
	})
}

// tree returns the names of the spans in the order of their start, each indented below its parent. All have ended.
func (r *recorder) tree(t *testing.T) (lines []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		require.True(t, s.ended, s.name)
		indent := ""
		for p := s.parent; p != nil; p = p.parent {
			indent += " "
		}
		lines = append(lines, indent+s.name)
	}
	r.spans = nil
	return lines
}

// One trace goes from the caller's span down to each request, through a heal too.
func TestSpans(t *testing.T) {
	r := &recorder{}
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TracingProvider = r.provider() },
	)
	caller := r.start(t.Context(), "caller")
	caller.ended = true
	ctx := context.WithValue(t.Context(), spanKey{}, caller)
	get := func(scope string) {
		t.Helper()
		_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		require.NoError(t, err)
	}
	mint := []string{
		"  ImdsV2MtlsCredential.mint",
		"   ImdsV2MtlsCredential.metadata", "    HTTP GET",
		"   ImdsV2MtlsCredential.key",
		"   ImdsV2MtlsCredential.issue", "    HTTP POST",
	}
	token := []string{"  ImdsV2MtlsCredential.token", "   HTTP POST"}
	join := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	get(vault)
	for _, s := range r.spans {
		require.Empty(t, s.failed, s.name)
	}
	require.Equal(t, join([]string{"caller", " ImdsV2MtlsCredential.GetToken"}, mint, token), r.tree(t))
	get(vault)
	require.Empty(t, r.tree(t), "from memory")

	require.NoError(t, f.cred.Close())
	bad := f.store.get(alias).Thumbprint()
	f.server.Refuse(bad, 48)
	get(storage)
	spans := r.spans
	require.Equal(t, join([]string{" ImdsV2MtlsCredential.GetToken"}, token,
		[]string{"  ImdsV2MtlsCredential.recover"}, mint, token), r.tree(t))
	require.Empty(t, spans[0].failed, "it healed")
	require.Contains(t, spans[1].failed, "was refused at")
	require.Equal(t, map[string]any{
		"azmtls.refused_certificate": bad[:6] + "…", "azmtls.refused_at": spans[3].attrs["azmtls.refused_at"],
		"azmtls.recovery_retry": true,
	}, spans[3].attrs)
	require.NotEmpty(t, spans[3].attrs["azmtls.refused_at"])

	f.clock.Advance(2 * time.Second) // for a unit of the budget
	require.NoError(t, f.cred.Renew(ctx))
	renewal := r.tree(t)
	require.Equal(t, " ImdsV2MtlsCredential.Renew", renewal[0])
	require.Equal(t, mint, renewal[1:])
}

// A span says where it failed, and no identifier.
func TestSpansOfAFailure(t *testing.T) {
	r := &recorder{}
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TracingProvider = r.provider() },
	)
	answer := imdstest.Respond{Status: 400, Body: `{"error":"of ` + clientID + `"}`}
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: answer})
	_, err := f.token(vault)
	require.Error(t, err)
	failed := map[string]string{}
	for _, s := range r.spans {
		failed[s.name] = s.failed
		require.NotContains(t, s.failed, clientID)
	}
	for _, name := range []string{"GetToken", "mint", "issue"} {
		require.Contains(t, failed["ImdsV2MtlsCredential."+name], "of 111111…", name)
	}
	require.Empty(t, failed["ImdsV2MtlsCredential.metadata"])
	require.NotContains(t, failed, "ImdsV2MtlsCredential.token")
	r.tree(t)
}
