package azmtls_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// A handler that crashes ends its connection without a word, as a refusal may. Of a resource that took the binding a
// moment ago it says nothing of the certificate, and a request that may have been processed is not sent again, on
// whichever connection it went.
func TestCrashIsNoRefusal(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPatch} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, fresh := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/fresh %t", tls.VersionName(version), method, fresh), func(t *testing.T) {
					t.Parallel()
					var ran atomic.Int32
					f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: http.HandlerFunc(
						func(_ http.ResponseWriter, r *http.Request) {
							if r.Method == method {
								ran.Add(1)
								panic(http.ErrAbortHandler)
							}
						})}, nil)
					client, plain := f.bound(), f.cred.Client(storage)
					for range 3 {
						_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
						require.NoError(t, err)
					}
					for n := 1; n <= 10; n += 2 {
						if fresh {
							require.NoError(t, f.cred.Close())
						}
						_, _, err := send(t.Context(), client, method, f.server.ResourceURL(), "payload")
						require.Error(t, err)
						require.EqualValues(t, n, ran.Load(), "it ran once")
						f.clock.Advance(10 * time.Second) // far enough apart to confirm each other, were they evidence

						if !fresh {
							_, _, err = send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
							require.NoError(t, err) // so that there is a connection to be reused
						}
						body := strings.NewReader("payload")
						req, err := http.NewRequestWithContext(t.Context(), method, f.server.ResourceURL(), body)
						require.NoError(t, err)
						_, err = plain.Do(req)
						require.Error(t, err)
						require.EqualValues(t, n+1, ran.Load(), "it ran once")
						f.clock.Advance(10 * time.Second)
						if !fresh {
							_, _, err = send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
							require.NoError(t, err)
						}
					}
					require.Zero(t, f.store.evicted())
					require.Equal(t, 1, f.server.Counts().Issued)
				})
			}
		}
	}
}

// lossOfPosts has the resource process a request and lose its connection, for as long as it is made with the binding at
// hand, which it has never answered.
func lossOfPosts(t *testing.T, version uint16, action imdstest.Action) *fixture {
	f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: echo}, nil)
	_, err := f.token(vault)
	require.NoError(t, err)
	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Resource, At: imdstest.AtAnswer, Do: action, Thumbprint: f.store.get(alias).Thumbprint(),
	})
	return f
}

// nonRetriable is how errors tell azcore's retry policy that trying again is of no use.
type nonRetriable interface {
	error
	NonRetriable()
}

// A POST whose connection is lost is never sent twice by us. Its caller's next attempt confirms the loss, whoever makes
// it, and the one after that has a fresh binding.
func TestLostPostIsConfirmedByItsCaller(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, action := range map[string]imdstest.Action{"reset": imdstest.Reset{}, "EOF": imdstest.EOF{}} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := lossOfPosts(t, version, action)
				bad := f.store.get(alias).Thumbprint()
				client := f.bound()
				post := func(attempt int) error {
					_, body, err := send(t.Context(), client, http.MethodPost, f.server.ResourceURL(), "payload")
					require.Equal(t, attempt, f.server.Counts().ResourceAuthorized, "it ran once")
					if err == nil {
						require.Equal(t, "mtls_pop payload", body)
						return nil
					}
					var final nonRetriable
					require.NotErrorAs(t, err, &final, "azcore may well try again")
					return err
				}
				var refusal *mtls.Refusal
				require.NotErrorAs(t, post(1), &refusal)
				f.clock.Advance(240 * time.Millisecond)
				require.NotErrorAs(t, post(2), &refusal, "too near: one outage can take both")
				require.Zero(t, f.store.evicted())
				f.clock.Advance(20 * time.Millisecond)
				require.ErrorAs(t, post(3), &refusal, "the first one counts, not the latest")
				require.True(t, refusal.Final)
				require.Equal(t, bad, refusal.Binding.Thumbprint())
				require.Equal(t, 1, f.store.evicted())
				require.NoError(t, post(4))
				require.Equal(t, 2, f.server.Counts().Issued)
				f.noRejections()
			})
			t.Run(tls.VersionName(version)+"/"+name+", azcore retries", func(t *testing.T) {
				t.Parallel()
				f := lossOfPosts(t, version, action)
				tries := 0
				delayed := policyFunc(func(req *policy.Request) (*http.Response, error) {
					tries++
					f.clock.Advance(800 * time.Millisecond) // azcore's own delay
					return req.Next()
				})
				options := &azcore.ClientOptions{PerRetryPolicies: []policy.Policy{delayed}}
				options.Retry = policy.RetryOptions{RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond}
				f.cred.BindClientOptions(options)
				client := sdkClient(f.cred, options)
				status, body, err := send(t.Context(), client, http.MethodPost, f.server.ResourceURL(), "payload")
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, status)
				require.Equal(t, "mtls_pop payload", body)
				require.Equal(t, 3, tries)
				require.Equal(t, 3, f.server.Counts().ResourceAuthorized, "once for each try of the caller's")
				require.Equal(t, 2, f.server.Counts().Issued)
				require.Equal(t, 1, f.store.evicted())
			})
		}
	}
}

// An Idempotency-Key says that a POST may be repeated: then it heals by itself.
func TestLostPostWithIdempotencyKey(t *testing.T) {
	f := lossOfPosts(t, tls.VersionTLS13, imdstest.Reset{})
	payload := strings.NewReader("payload")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.ResourceURL(), payload)
	require.NoError(t, err)
	req.Header.Set("Idempotency-Key", "1")
	resp, err := f.cred.Client(storage).Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "mtls_pop payload", string(body))
	require.Equal(t, 1, f.store.evicted())
}

// An outage of 20 ms takes the connections of several callers. The attempt that would confirm a loss comes 250 to 350
// ms after it, when everything is well again.
func TestShortOutage(t *testing.T) {
	for _, endpoint := range []imdstest.Endpoint{imdstest.Token, imdstest.Resource} {
		for _, stage := range []imdstest.Stage{imdstest.AtCertificate, imdstest.AtRequest, imdstest.AtAnswer} {
			for name, action := range map[string]imdstest.Action{"reset": imdstest.Reset{}, "EOF": imdstest.EOF{}} {
				for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					title := fmt.Sprintf("%s/%s/%s/%s", endpoint, stage, name, tls.VersionName(version))
					t.Run(title, func(t *testing.T) {
						t.Parallel()
						outage(t, imdstest.Fault{Endpoint: endpoint, At: stage, Do: action, Times: 2}, version)
					})
				}
			}
		}
	}
}

func outage(t *testing.T, fault imdstest.Fault, version uint16) {
	f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: echo}, nil)
	planted := f.plant()
	client := f.bound()
	if fault.Endpoint == imdstest.Resource {
		_, err := f.cred.Client(storage).Head(f.server.ResourceURL()) // so that it has its token
		require.NoError(t, err)
		require.NoError(t, f.cred.Close())
		f.clock.Advance(6 * time.Minute) // the host is not known any more as one that takes this binding
	}
	f.server.Inject(fault)
	f.clock.Manual()
	errs := make(chan error, 2)
	call := func(n int) {
		if fault.Endpoint == imdstest.Token {
			_, err := f.token(fmt.Sprintf("https://resource-%d", n))
			errs <- err
			return
		}
		_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
		errs <- err
	}
	for n := range 2 {
		go call(n)
		var waits []time.Duration
		require.Eventually(t, func() bool {
			waits = append(waits, f.clock.Waits()...)
			return len(waits) == 1
		}, 10*time.Second, time.Millisecond)
		require.GreaterOrEqual(t, waits[0], 250*time.Millisecond)
		require.LessOrEqual(t, waits[0], 350*time.Millisecond)
		f.clock.Advance(20 * time.Millisecond)
	}
	require.Equal(t, 2, f.server.Counts().Faults)
	f.clock.Advance(350 * time.Millisecond)
	for range 2 {
		require.NoError(t, <-errs)
	}
	require.Zero(t, f.store.evicted())
	require.Zero(t, f.server.Counts().Issued)
	require.Same(t, planted, f.store.get(alias))
}

// An answer that is cut short is reported as what it is, also where its beginning was looked at.
func TestErrorAnswerThatIsCutShort(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Retry.MaxRetries = -1 })
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: invalidClient})
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtBody, Do: imdstest.EOF{}})
	_, err := f.token(vault)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Zero(t, f.store.evicted(), "what was not read says nothing")
	require.Equal(t, 1, f.server.Counts().Issued)
}
