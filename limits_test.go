package azmtls_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// get asks for a token in a goroutine of its own.
func (f *fixture) get(ctx context.Context, scope string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
		done <- err
	}()
	return done
}

// passes lets time pass, from one timer to the next, until the call has ended.
func (f *fixture) passes(done <-chan error) error {
	for {
		idle()
		select {
		case err := <-done:
			return err
		default:
			f.advance()
		}
	}
}

// advance lets time pass until the next timer fires, if one is set.
func (f *fixture) advance() {
	if next, set := f.clock.Next(); set {
		f.clock.Advance(next)
	}
}

// idle waits until every goroutine of the process waits: for the clock, or for a peer that does not answer. A second is
// the most.
func idle() { idleWithin(5000) }

// idleWithin is idle for so many looks at the most.
func idleWithin(most int) {
	var work []metrics.Sample
	for _, state := range []string{"running", "runnable", "not-in-go"} {
		work = append(work, metrics.Sample{Name: "/sched/goroutines/" + state + ":goroutines"})
	}
	enough := 3
	if runtime.GOOS == "windows" { // under Wine another process brings what the network has, and it may have to wait
		enough = 20
	}
	for quiet, looks := 0, 0; quiet < enough && looks < most; looks++ {
		time.Sleep(200 * time.Microsecond) // what the network has for somebody reaches him
		metrics.Read(work)
		busy := uint64(0)
		for _, state := range work {
			busy += state.Value.Uint64()
		}
		if quiet++; busy > 1 { // this one runs
			quiet = 0
		}
	}
}

// A request that is never answered is given up on and sent again; the next caller gets its token, whatever deadline the
// first has.
func TestOneAnswerThatNeverComes(t *testing.T) {
	for _, endpoint := range []imdstest.Endpoint{imdstest.Issue, imdstest.Token} {
		t.Run(string(endpoint), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			f.clock.Manual()
			f.server.Inject(imdstest.Fault{Endpoint: endpoint, Do: imdstest.Hang{}, Times: 1})
			start := f.clock.Boot()
			first := f.get(t.Context(), vault)
			require.Eventually(t, func() bool { return f.server.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
			second := f.get(t.Context(), storage)
			require.NoError(t, f.passes(second))
			require.LessOrEqual(t, f.clock.Boot()-start, 20*time.Second)
			require.NoError(t, f.passes(first))
		})
	}
}

// The same, met by a refresh in the background: the credential goes on.
func TestRefreshThatHangs(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, err := f.token(vault)
	require.NoError(t, err)
	f.clock.Manual()
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}, Times: 1})
	f.clock.Advance(34 * time.Minute)
	for range 100 { // one refresh of one token at a time
		_, err = f.token(vault)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return f.server.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, f.passes(f.get(t.Context(), storage)))
	for f.clock.Waiting() > 0 { // what is in the background has its limits too
		f.advance()
		idle()
	}
	require.Equal(t, 3, f.server.Counts().TokenIssued)
}

// A token takes 5 minutes in all, whatever the retry options say, and a certificate 4, whatever IMDS asks to wait. Who
// waits learns what it was that took so long.
func TestLimitsInAll(t *testing.T) {
	for name, test := range map[string]struct {
		faults []imdstest.Fault
		limit  time.Duration
		says   string
	}{
		"token": {
			[]imdstest.Fault{{Endpoint: imdstest.Token, Do: imdstest.Hang{}}},
			5 * time.Minute, "no answer within 5m0s",
		},
		"mint": {
			[]imdstest.Fault{
				{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: 429, RetryAfter: time.Minute}, Times: 3},
				{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 429, RetryAfter: time.Minute}, Times: 1},
				{Endpoint: imdstest.Issue, Do: imdstest.Hang{}},
			},
			4 * time.Minute, "no answer within 4m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Retry.MaxRetries = 1000 })
			f.clock.Manual()
			for _, fault := range test.faults {
				f.server.Inject(fault)
			}
			start := f.clock.Boot()
			err := f.passes(f.get(t.Context(), vault))
			require.ErrorContains(t, err, test.says)
			require.InDelta(t, test.limit.Seconds(), (f.clock.Boot() - start).Seconds(), 2)
			require.NotErrorIs(t, err, context.Canceled, "nobody cancelled it")
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
		})
	}
}

// Code of the caller's that never returns is given up on. Who asks next has it tried anew.
func TestCallersCodeThatNeverReturns(t *testing.T) {
	for name, test := range map[string]struct {
		limit time.Duration
		says  string
		edit  func(o *azmtls.ImdsV2MtlsCredentialOptions, hang func())
	}{
		"key provider": {time.Minute, "waiting for the key provider", func(o *azmtls.ImdsV2MtlsCredentialOptions, hang func()) {
			keys := o.KeyProvider
			o.KeyProvider = keyFunc(func(ctx context.Context) (mtls.Key, error) { hang(); return keys.Key(ctx) })
		}},
		"attestation": {time.Minute, "waiting for the attestation", func(o *azmtls.ImdsV2MtlsCredentialOptions, hang func()) {
			o.Attestation = attestFunc(func() (string, error) { hang(); return "jwt", nil })
		}},
		"policy": {5*time.Minute + time.Second, "no answer within 5m0s", func(o *azmtls.ImdsV2MtlsCredentialOptions, hang func()) {
			o.PerCallPolicies = []policy.Policy{policyFunc(func(r *policy.Request) (*http.Response, error) {
				if strings.HasSuffix(r.Raw().URL.Path, "/token") {
					hang()
				}
				return r.Next()
			})}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var hung atomic.Bool
			release := make(chan struct{})
			t.Cleanup(func() { close(release) })
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				test.edit(o, func() {
					if hung.CompareAndSwap(false, true) {
						<-release
					}
				})
			})
			f.clock.Manual()
			start := f.clock.Boot()
			err := f.passes(f.get(t.Context(), vault))
			require.ErrorContains(t, err, test.says)
			require.InDelta(t, test.limit.Seconds(), (f.clock.Boot() - start).Seconds(), 2)
			f.clock.Advance(time.Minute) // a provider that failed costs a unit of the budget
			require.NoError(t, f.passes(f.get(t.Context(), vault)))
		})
	}
}

// IMDS is given up on after 4 s only as long as it has not answered: to any credential that shares the Cache.
func TestFirstAnswerIsTheCaches(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	f.clock.Manual()
	shared := &mtls.Cache{Clock: f.clock.Clock()}
	f.cred = f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Cache = shared })
	require.NoError(t, f.passes(f.get(t.Context(), vault)))
	for _, test := range []struct {
		cache   *mtls.Cache
		patient bool
	}{{shared, true}, {&mtls.Cache{Clock: f.clock.Clock()}, false}} {
		gate, faults := make(chan struct{}), f.server.Counts().Faults
		remove := f.server.Inject(imdstest.Fault{
			Endpoint: imdstest.Metadata, At: imdstest.AtAnswer, Do: imdstest.Edit(func(map[string]any) { <-gate }), Times: 1,
		})
		f.cred = f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.ID, o.Cache, o.Store = azidentity.ClientID(clientID), test.cache, mtls.NoStore{}
		})
		asked := f.get(t.Context(), vault)
		require.Eventually(t, func() bool { return f.server.Counts().Faults > faults }, 10*time.Second, time.Millisecond)
		f.clock.Advance(6 * time.Second)
		if test.patient {
			close(gate)
		}
		err := <-asked
		if test.patient {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "within 4s")
			close(gate)
		}
		remove()
	}
}

// An answer of IMDS or Entra that is cut short is asked for again: that does no harm.
func TestAnswerCutShort(t *testing.T) {
	for _, endpoint := range []imdstest.Endpoint{imdstest.Metadata, imdstest.Issue, imdstest.Token} {
		f := newFixture(t, imdstest.Options{}, nil)
		f.server.Inject(imdstest.Fault{Endpoint: endpoint, At: imdstest.AtAnswer, Do: imdstest.Truncate{}, Times: 1})
		_, err := f.token(vault)
		require.NoError(t, err, endpoint)
		require.Equal(t, 1, f.server.Counts().Faults)
		require.Zero(t, f.store.evicted())
	}
}

// Whoever gives up is told what took so long; the work goes on for the next.
func TestErrorNamesTheStage(t *testing.T) {
	for endpoint, stage := range map[imdstest.Endpoint]string{
		imdstest.Metadata: "waiting for IMDS to say what this machine is, for ",
		imdstest.Issue:    "waiting for IMDS to issue a certificate, for ",
		imdstest.Token:    "waiting for Entra to answer, for ",
	} {
		f := newFixture(t, imdstest.Options{}, nil)
		gate := make(chan struct{})
		f.server.Inject(
			imdstest.Fault{Endpoint: endpoint, At: imdstest.AtAnswer, Do: imdstest.Edit(func(map[string]any) { <-gate })},
		)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, stage)
		close(gate)
		_, err = f.token(vault)
		require.NoError(t, err)
		counts := f.server.Counts()
		require.Equal(t, []int{1, 1, 1}, []int{counts.Metadata, counts.Issue, counts.Token}, "one of each")
	}
}

// Retry options speak of Entra alone.
func TestTryTimeoutDoesNotCutIMDS(t *testing.T) {
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Retry.TryTimeout = 100 * time.Millisecond },
	)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Delay(300 * time.Millisecond), Times: 1})
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 429}, Times: 2})
	_, err := f.token(vault)
	require.NoError(t, err)
}

// They do speak of Entra: a try that takes too long is cut off, and there is another.
func TestTryTimeoutCutsEntra(t *testing.T) {
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Retry.TryTimeout = 100 * time.Millisecond },
	)
	f.clock.Manual() // no limit of ours ends it
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}, Times: 1})
	_, err := f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 1, f.server.Counts().Faults)
	require.Equal(t, 2, f.server.Counts().Token)
}

// Entra hangs for as long as a token still serves: its refresh is one at a time, and nothing piles up.
func TestEntraHangsWhileATokenServes(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, err := f.token(vault)
	require.NoError(t, err)
	f.clock.Manual()
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
	f.clock.Advance(34 * time.Minute)
	most := 0
	for range 23 * 60 / 5 {
		for range 10 {
			_, err := f.token(vault)
			require.NoError(t, err)
		}
		idle()
		most = max(most, f.clock.Waiting())
		f.clock.Advance(5 * time.Second)
	}
	require.Equal(t, 3, most, "the limits of one refresh: of its flight, the grace of that, and its try")
	require.GreaterOrEqual(t, f.server.Counts().Faults, 8, "it is tried again and again")
	require.LessOrEqual(t, f.server.Counts().Faults, 40)
}

// A Retry-After too long to be waited for is remembered: calls get the cause at once, for no request and no key, until
// it is over.
func TestLongRetryAfterIsRemembered(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	keys := &countingKeys{keys: f.keys}
	f.cred = f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.KeyProvider = keys })
	remove := f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 429, RetryAfter: 2 * time.Minute}},
	)
	for range 50 {
		_, err := f.token(vault)
		require.ErrorContains(t, err, "429")
		var response *azcore.ResponseError
		require.ErrorAs(t, err, &response)
	}
	require.Equal(t, 1, f.server.Counts().Issue)
	require.EqualValues(t, 1, keys.made.Load())
	remove()
	f.clock.Advance(2*time.Minute + time.Second)
	_, err := f.token(vault)
	require.NoError(t, err)
}

type countingKeys struct {
	*keys
	made atomic.Int32
}

func (k *countingKeys) Key(ctx context.Context) (mtls.Key, error) {
	k.made.Add(1)
	return k.keys.Key(ctx)
}

// A panic in the caller's code is an error of the call, wherever it runs.
func TestPanicsAreErrors(t *testing.T) {
	for name, edit := range map[string]func(*azmtls.ImdsV2MtlsCredentialOptions){
		"key provider": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.KeyProvider = keyFunc(func(context.Context) (mtls.Key, error) { panic("bug") })
		},
		"key": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.KeyProvider = &keys{broken: func() error { panic("bug") }}
		},
		"key, in the handshake": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			var signed atomic.Int32
			o.KeyProvider = &keys{broken: func() error {
				if signed.Add(1) > 1 { // the first one is of the certificate request
					panic("bug")
				}
				return nil
			}}
		},
		"verification of the server": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.MTLSTransport.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { panic("bug") }
		},
		"transport to IMDS": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.Transport = transporterFunc(func(*http.Request) (*http.Response, error) { panic("bug") })
		},
		"attestation": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.Attestation = attestFunc(func() (string, error) { panic("bug") })
		},
		"proxy": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.MTLSTransport.Proxy = func(*http.Request) (*url.URL, error) { panic("bug") }
		},
		"dialer": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.MTLSTransport.DialContext = func(context.Context, string, string) (net.Conn, error) { panic("bug") }
		},
		"policy": func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.PerCallPolicies = []policy.Policy{policyFunc(func(*policy.Request) (*http.Response, error) { panic("bug") })}
		},
	} {
		f := newFixture(t, imdstest.Options{}, edit)
		_, err := f.token(vault)
		require.ErrorContains(t, err, "bug", name)
	}
}

type transporterFunc func(*http.Request) (*http.Response, error)

func (f transporterFunc) Do(req *http.Request) (*http.Response, error) { return f(req) }

// A listener of azcore's log may ask the credential for a token, whatever it is told: what a flight logs is written
// when it has landed.
func TestListenerMayAskForAToken(t *testing.T) {
	for _, line := range []string{"minted", "got a", "was refused at", "evicted", "trying once more", "refreshing the token"} {
		t.Run(line, func(t *testing.T) {
			refreshed := make(chan struct{}, 1)
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.Observer = func(e azmtls.Event) {
					if e.Step == azmtls.StepRefreshFailed {
						refreshed <- struct{}{}
					}
				}
			})
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: invalidClient, Times: 1})
			var inside atomic.Bool
			failed := make(chan error, 1)
			log.SetEvents(azmtls.EventAuthentication, azmtls.EventBinding, azmtls.EventRecovery)
			hunt.Listen(t, func(_ log.Event, message string) {
				if strings.Contains(message, line) && inside.CompareAndSwap(false, true) {
					_, err := f.token(vault)
					failed <- err
				}
			})
			defer log.SetEvents()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
			require.NoError(t, err)
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Respond{Status: 403}})
			f.clock.Advance(40 * time.Minute)
			_, err = f.token(vault)
			require.NoError(t, err)
			require.NoError(t, <-failed)
			<-refreshed // azcore's listener must not be changed while somebody may call it
		})
	}
}
