package azmtls_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/compare"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// imdsV1 is as much of IMDS v1 as azidentity.ManagedIdentityCredential needs.
var imdsV1 = transporter(func(req *http.Request) (*http.Response, error) {
	body := fmt.Sprintf(
		`{"access_token":"token","expires_in":"3600","expires_on":"4102444800","resource":%q,"token_type":"Bearer"}`,
		req.URL.Query().Get("resource"),
	)
	return &http.Response{
		StatusCode: http.StatusOK,
		Header:     http.Header{"Content-Type": {"application/json"}},
		Body:       io.NopCloser(strings.NewReader(body)),
		Request:    req,
	}, nil
})

// filled is a credential with tokens in its cache.
type filled struct {
	testing.TB
	cred     azcore.TokenCredential
	requests []policy.TokenRequestOptions
}

// fill gets tokens until there are n.
func (f *filled) fill(n int) *filled {
	f.Helper()
	for i := len(f.requests); i < n; i++ {
		scope := fmt.Sprintf("https://resource-%d/.default", i)
		f.requests = append(f.requests, policy.TokenRequestOptions{Scopes: []string{scope}})
		_, err := f.cred.GetToken(f.Context(), f.requests[i])
		require.NoError(f, err)
	}
	return f
}

// asks returns a function that asks for the first n tokens in turn, as if at random, and returns what one call took.
func (f *filled) asks(n, calls int) func() (ns float64) {
	ctx, next := f.Context(), steps(n)
	return compare.Each(calls, func() {
		if _, err := f.cred.GetToken(ctx, f.requests[next()]); err != nil {
			f.Fatal(err)
		}
	})
}

// steps returns a function that goes through 0 to n-1 in big steps.
func steps(n int) func() int {
	at := 0
	return func() int {
		if at += 7919; at >= n {
			at %= n
		}
		return at
	}
}

// BenchmarkGetTokenCached asks for tokens that are there.
func BenchmarkGetTokenCached(b *testing.B) {
	const calls, theirCalls = 20_000, 500
	server := imdstest.NewServer(nil)
	defer server.Close()
	credential := func() *filled {
		cred, err := azmtls.NewImdsV2MtlsCredential(onRealClock(b, server))
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, cred.Close()) })
		return &filled{TB: b, cred: cred}
	}
	v1, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: imdsV1},
	})
	require.NoError(b, err)
	few, many, theirs := credential().fill(50), credential(), &filled{TB: b, cred: v1}

	for _, n := range []int{1, 50, 10_000} { // to fill azidentity's cache with 100,000 would take 8 minutes
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			many.fill(n)
			theirs.fill(n)
			runtime.GC()
			compare.Turns(b, many.asks(n, calls), theirs.asks(n, max(10, theirCalls/n)))
			b.ReportMetric(allocations(b, many), "allocs/ours")
			b.ReportMetric(allocations(b, theirs), "allocs/theirs")
		})
	}
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("50_of_%d", n), func(b *testing.B) {
			many.fill(n)
			runtime.GC()
			compare.Turns(b, many.asks(50, calls), few.asks(50, calls))
		})
	}
	b.Run("100000", func(b *testing.B) {
		many.fill(100_000)
		plain, next := map[string]*policy.TokenRequestOptions{}, steps(len(many.requests))
		for _, request := range many.requests {
			plain[strings.Clone(request.Scopes[0])] = &policy.TokenRequestOptions{}
		}
		runtime.GC()
		compare.Turns(b, many.asks(len(many.requests), calls), compare.Each(calls, func() {
			if plain[many.requests[next()].Scopes[0]].EnableCAE {
				b.Fatal("it holds other values")
			}
		}))
	})
	b.Run("parallel", func(b *testing.B) {
		cores := runtime.GOMAXPROCS(0)
		all := compare.Each(1, func() {
			var wg sync.WaitGroup
			for range cores {
				wg.Go(func() { few.asks(50, calls)() })
			}
			wg.Wait()
		})
		compare.Turns(b, func() float64 { return all() / float64(calls*cores) }, few.asks(50, calls))
	})
}

func allocations(t testing.TB, f *filled) float64 {
	ctx := t.Context()
	return testing.AllocsPerRun(1000, func() { _, _ = f.cred.GetToken(ctx, f.requests[0]) })
}

// A token at hand costs no allocation: every request of every client asks for one.
func TestCachedGetTokenAllocatesNothing(t *testing.T) {
	server := imdstest.NewServer(nil)
	defer server.Close()
	cred, err := azmtls.NewImdsV2MtlsCredential(onRealClock(t, server))
	require.NoError(t, err)
	defer cred.Close()
	require.Zero(t, allocations(t, (&filled{TB: t, cred: cred}).fill(50)))
}

// BenchmarkNewToken keeps tokens where there are 100,000 already, and where there are 10.
func BenchmarkNewToken(b *testing.B) {
	const few, many, size = 10, 100_000, 1400
	padding, planted := strings.Repeat("x", size), newFixture(b, imdstest.Options{}, nil).plant()
	binding, err := (&mtls.Cache{}).GetOrMint(b.Context(), mtls.Source{
		Mint: func(context.Context, mtls.MintRequest) (*mtls.Binding, error) { return planted, nil },
	})
	require.NoError(b, err)
	add := func(c *tokencache.Cache, from, to int) {
		for i := from; i < to; i++ {
			key := tokencache.Key{Resource: fmt.Sprintf("https://resource-%d", i), Bound: true}
			c.Put(c.NewEntry(key, fmt.Sprint(i, padding)[:size], time.Hour, time.Hour/2, binding))
		}
	}
	filled := func(n int) *tokencache.Cache {
		c := tokencache.New(nil)
		add(c, 0, n)
		return c
	}
	heap := func() float64 {
		time.Sleep(time.Second) // what timers hold of earlier caches is let go
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	compare.Turns(b, func() float64 {
		c := filled(many)
		return compare.Each(1, func() { add(c, many, 2*many) })() / many
	}, func() float64 {
		var caches []*tokencache.Cache
		for range many / few {
			caches = append(caches, filled(few))
		}
		return compare.Each(1, func() {
			for _, c := range caches {
				add(c, few, 2*few)
			}
		})() / many
	})
	before := heap()
	full := filled(many)
	b.ReportMetric((heap()-before)/many-size, "B/ours")
	runtime.KeepAlive(full)
}
