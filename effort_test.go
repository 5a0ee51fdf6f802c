package azmtls_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// efforts are how many requests it takes to serve so many callers at once, of so many credentials of one identity, with
// so many scopes.
var efforts = map[string]struct {
	callers, credentials, scopes int
	metadata, issue, token       int
}{
	"10000_callers":  {10_000, 1, 1, 1, 1, 1},
	"50_scopes":      {5_000, 1, 50, 1, 1, 50},
	"10_credentials": {1_000, 10, 1, 1, 1, 10},
}

// ask has callers ask for tokens at once, with credentials that are cold, and returns which requests that took.
func ask(t testing.TB, callers, credentials, scopes int) imdstest.Counts {
	t.Helper()
	server := imdstest.NewServer(nil)
	defer server.Close()
	options := onRealClock(t, server)
	var creds []*azmtls.ImdsV2MtlsCredential
	for range credentials {
		cred, err := azmtls.NewImdsV2MtlsCredential(options)
		require.NoError(t, err)
		defer cred.Close()
		creds = append(creds, cred)
	}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range callers {
		wg.Go(func() {
			<-start
			scope := fmt.Sprintf("https://resource-%d/.default", i%scopes)
			_, err := creds[i%credentials].GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
			assert.NoError(t, err)
		})
	}
	close(start)
	wg.Wait()
	require.Empty(t, server.Rejections())
	return server.Counts()
}

// 10,000 callers cause one of each request, 50 scopes one mint, and so do ten credentials of one identity.
func TestEffortIsShared(t *testing.T) {
	for name, effort := range efforts {
		t.Run(name, func(t *testing.T) {
			counts := ask(t, effort.callers, effort.credentials, effort.scopes)
			require.Equal(t, effort.metadata, counts.Metadata)
			require.Equal(t, effort.issue, counts.Issue)
			require.Equal(t, effort.token, counts.Token)
		})
	}
}

// BenchmarkEffort reports the same counts, the highest of all rounds.
func BenchmarkEffort(b *testing.B) {
	for name, effort := range efforts {
		b.Run(name, func(b *testing.B) {
			var most imdstest.Counts
			for b.Loop() {
				counts := ask(b, effort.callers, effort.credentials, effort.scopes)
				most.Metadata = max(most.Metadata, counts.Metadata)
				most.Issue = max(most.Issue, counts.Issue)
				most.Token = max(most.Token, counts.Token)
			}
			b.ReportMetric(float64(most.Metadata), "metadata")
			b.ReportMetric(float64(most.Issue), "issue")
			b.ReportMetric(float64(most.Token), "token")
		})
	}
}
