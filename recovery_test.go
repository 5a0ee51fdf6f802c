package azmtls_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
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

// healingFaults speak of the binding, when they strike every connection with its certificate.
func healingFaults() map[string]imdstest.Fault {
	faults := map[string]imdstest.Fault{
		"reset in handshake":    {At: imdstest.AtCertificate, Do: imdstest.Reset{}},
		"EOF in handshake":      {At: imdstest.AtCertificate, Do: imdstest.EOF{}},
		"reset after handshake": {Do: imdstest.Reset{}},
		"EOF after handshake":   {Do: imdstest.EOF{}},
		"invalid_client":        {Do: imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}},
		"AADSTS1000901":         {Do: imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS1000901"}},
		"AADSTS500181":          {Do: imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS500181"}},
	}
	for _, alert := range []uint8{40, 42, 43, 44, 45, 46, 48, 49, 51, 116} {
		faults[fmt.Sprintf("alert %d", alert)] = imdstest.Fault{At: imdstest.AtCertificate, Do: imdstest.Alert(alert)}
	}
	return faults
}

// TestHeals is the promise of this library: a binding that is refused, however and wherever it came from, is replaced
// once, and nothing else is touched.
func TestHeals(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, fault := range healingFaults() {
			if version == tls.VersionTLS12 && fault.Do == imdstest.Alert(116) {
				continue // certificate_required is TLS 1.3's
			}
			fault.Endpoint = imdstest.Token
			for _, origin := range []string{"cold", "warm", "stored"} {
				t.Run(fmt.Sprintf("%s/%s/%s", tls.VersionName(version), name, origin), func(t *testing.T) {
					t.Parallel()
					fault := fault
					f := newFixture(t, imdstest.Options{TLSVersion: version}, nil)
					bystander := f.plant()
					f.store.entries = map[string]*mtls.Binding{"other#att=0": bystander}
					var bad string
					minted := 1
					refuse := func(b *mtls.Binding) {
						bad, fault.Thumbprint = b.Thumbprint(), b.Thumbprint()
						f.server.Inject(fault)
					}
					switch origin {
					case "cold": // the very first certificate is refused
						var once atomic.Bool
						f.store.onSave = func(b *mtls.Binding) {
							if once.CompareAndSwap(false, true) {
								refuse(b)
							}
						}
					case "warm": // it worked until now
						_, err := f.token(storage)
						require.NoError(t, err)
						require.NoError(t, f.cred.Close())
						refuse(f.store.get(alias))
					case "stored": // an earlier process left it
						refuse(f.plant())
						minted = 0
					}
					_, err := f.token(vault)
					require.NoError(t, err)
					require.Equal(t, minted+1, f.server.Counts().Issued, "exactly one more mint")
					require.Equal(t, 1, f.store.evicted(), "exactly one eviction")
					require.NotEqual(t, bad, f.store.get(alias).Thumbprint(), "the store holds the fresh one")
					require.Same(t, bystander, f.store.get("other#att=0"), "another alias is untouched")

					presented := f.server.Presented(bad)
					_, err = f.token(storage)
					require.NoError(t, err)
					require.Equal(t, presented, f.server.Presented(bad), "the refused certificate is not presented again")
					require.Equal(t, minted+1, f.server.Counts().Issued)
					f.noRejections()
				})
			}
		}
	}
}

// A certificate whose key cannot sign any more fails on this side of the wire.
func TestHealsADeadKey(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{TLSVersion: version}, nil)
			f.keys.broken = func() error { return errors.New("NTE_BAD_KEYSET") }
			f.plant()
			f.keys.broken = nil
			_, err := f.token(vault)
			require.NoError(t, err)
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Equal(t, 1, f.store.evicted())
		})
	}
}

// A store that cannot be cleaned must not bring the refused certificate back.
func TestHealsWithAStoreThatCannotBeCleaned(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	bad := f.plant().Thumbprint()
	f.store.stuck = true
	f.server.Refuse(bad, 48)
	_, err := f.token(vault)
	require.NoError(t, err)
	presented := f.server.Presented(bad)
	_, err = f.token(storage)
	require.NoError(t, err)
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Equal(t, presented, f.server.Presented(bad))
}

// TestDoesNotHeal is the other half of the promise: what says nothing of the binding costs nothing.
func TestDoesNotHeal(t *testing.T) {
	once := func(at imdstest.Stage, action imdstest.Action) imdstest.Fault {
		return imdstest.Fault{At: at, Do: action, Times: 1}
	}
	entra := func(status int) imdstest.Fault {
		return imdstest.Fault{Do: imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS1000901", Status: status}}
	}
	for name, test := range map[string]struct {
		fault imdstest.Fault
		fails bool
	}{
		"one reset in handshake":     {once(imdstest.AtCertificate, imdstest.Reset{}), false},
		"one EOF in handshake":       {once(imdstest.AtCertificate, imdstest.EOF{}), false},
		"one reset after handshake":  {once(imdstest.AtRequest, imdstest.Reset{}), false},
		"one EOF after handshake":    {once(imdstest.AtRequest, imdstest.EOF{}), false},
		"one reset before the cert":  {once(imdstest.AtHello, imdstest.Reset{}), false},
		"one EOF before the cert":    {once(imdstest.AtHello, imdstest.EOF{}), false},
		"resets before the cert":     {imdstest.Fault{At: imdstest.AtHello, Do: imdstest.Reset{}}, true},
		"EOFs before the cert":       {imdstest.Fault{At: imdstest.AtHello, Do: imdstest.EOF{}}, true},
		"alert 40 before the cert":   {imdstest.Fault{At: imdstest.AtHello, Do: imdstest.Alert(40)}, true},
		"alert 48 before the cert":   {imdstest.Fault{At: imdstest.AtHello, Do: imdstest.Alert(48)}, true},
		"alert of another kind":      {imdstest.Fault{At: imdstest.AtCertificate, Do: imdstest.Alert(80)}, true},
		"one 429":                    {imdstest.Fault{Do: imdstest.Respond{Status: 429}, Times: 1}, false},
		"one 503":                    {imdstest.Fault{Do: imdstest.Respond{Status: 503}, Times: 1}, false},
		"500 for ever":               {imdstest.Fault{Do: imdstest.Respond{Status: 500}}, true},
		"invalid_client as 408":      {entra(408), true},
		"invalid_client as 429":      {entra(429), true},
		"invalid_client as 503":      {entra(503), true},
		"invalid_scope":              {imdstest.Fault{Do: imdstest.EntraError{OAuth: "invalid_scope", AADSTS: "AADSTS70011"}}, true},
		"a code that only resembles": {imdstest.Fault{Do: imdstest.EntraError{OAuth: "invalid_request", AADSTS: "AADSTS10009011"}}, true},
		"reset in the body":          {imdstest.Fault{At: imdstest.AtBody, Do: imdstest.Reset{}}, true},
		"malformed body":             {imdstest.Fault{Do: imdstest.Malformed()}, true},
		"oversized body":             {imdstest.Fault{Do: imdstest.Oversized()}, true},
		"redirect":                   {imdstest.Fault{Do: imdstest.Redirect()}, true},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, imdstest.Options{TLSVersion: version}, nil)
				planted := f.plant()
				fault := test.fault
				fault.Endpoint = imdstest.Token
				f.server.Inject(fault)
				_, err := f.token(vault)
				if test.fails {
					var failure *azmtls.AuthenticationError
					require.ErrorAs(t, err, &failure)
					require.Equal(t, azmtls.RecoveryNone, failure.Recovery)
				} else {
					require.NoError(t, err)
				}
				require.NotZero(t, f.server.Counts().Faults, "the fault struck")
				require.Zero(t, f.server.Counts().Issued, "no mint")
				require.Zero(t, f.store.evicted(), "no eviction")
				require.Same(t, planted, f.store.get(alias))
			})
		}
	}
}

// A reset of a connection that had worked is repeated on a fresh one, and does not count towards anything.
func TestResetOfAReusedConnection(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	_, err := f.token(storage)
	require.NoError(t, err)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Reset{}, Times: 2})
	_, err = f.token(vault)
	require.NoError(t, err)
	require.Equal(t, 2, f.server.Counts().Faults)
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Zero(t, f.store.evicted())
}

func TestDoesNotHealWhatThisSideCaused(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, nil)
		f.plant()
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
			done <- err
		}()
		require.Eventually(t, func() bool { return f.server.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
		cancel()
		err := <-done
		require.ErrorIs(t, err, context.Canceled)
		var failure *azmtls.AuthenticationError
		require.ErrorAs(t, err, &failure)
		require.Zero(t, f.store.evicted())
	})
	t.Run("deadline", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, nil)
		f.plant()
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, f.store.evicted())
	})
	t.Run("handshake timeout", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.MTLSTransport.TLSHandshakeTimeout = 20 * time.Millisecond
			o.Retry.MaxRetries = -1
		})
		f.plant()
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtHello, Do: imdstest.Hang{}})
		_, err := f.token(vault)
		require.ErrorContains(t, err, "timeout")
		require.Zero(t, f.store.evicted())
	})
	t.Run("untrusted server", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.MTLSTransport = &http.Transport{TLSClientConfig: &tls.Config{}}
		})
		f.plant()
		_, err := f.token(vault)
		var untrusted *tls.CertificateVerificationError
		require.ErrorAs(t, err, &untrusted)
		require.ErrorContains(t, err, "RootCAs", "it says what to do")
		require.Zero(t, f.store.evicted())
	})
	t.Run("no such host", func(t *testing.T) {
		f := newFixture(t, imdstest.Options{}, nil)
		f.plant().Endpoint = "https://no-such-host.invalid/" + tenant
		_, err := f.token(vault)
		require.Error(t, err)
		require.Zero(t, f.store.evicted())
		require.Zero(t, f.server.Counts().Issued)
	})
}

// Every binding is refused: one retry, an account of it, and no mint loop.
func TestAlwaysRefused(t *testing.T) {
	for name, fault := range map[string]imdstest.Fault{
		"alert":          {At: imdstest.AtCertificate, Do: imdstest.Alert(48)},
		"reset":          {At: imdstest.AtCertificate, Do: imdstest.Reset{}},
		"invalid_client": {Do: imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			fault.Endpoint = imdstest.Token
			remove := f.server.Inject(fault)
			_, err := f.token(vault)
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, azmtls.RecoveryRefused, failure.Recovery)
			require.ErrorContains(t, err, failure.Recovery.String())
			require.Equal(t, 2, f.server.Counts().Issued, "one mint and one more")
			require.Equal(t, 1, f.store.evicted(), "there is no unit for the second")
			if name == "invalid_client" {
				require.Equal(t, "AADSTS700027", failure.AADSTS)
				require.NotEmpty(t, failure.CorrelationID)
				var response *azcore.ResponseError
				require.ErrorAs(t, err, &response)
			}

			tokens := f.server.Counts().TokenConnections
			for range 300 {
				_, err = f.token(vault)
				require.ErrorAs(t, err, &failure)
				require.Equal(t, azmtls.RecoveryPaused, failure.Recovery)
				var refusal *mtls.Refusal
				require.ErrorAs(t, err, &refusal, "the cause is given at once")
			}
			require.Equal(t, 2, f.server.Counts().Issued)
			require.Equal(t, tokens, f.server.Counts().TokenConnections, "nothing was sent")

			f.clock.Advance(1200 * time.Millisecond)
			_, err = f.token(vault)
			require.ErrorAs(t, err, &failure)
			require.Equal(t, azmtls.RecoveryRefused, failure.Recovery)
			require.Equal(t, 3, f.server.Counts().Issued, "one mint when the next unit has come")
			require.Equal(t, 2, f.store.evicted())

			remove()
			f.clock.Advance(1200 * time.Millisecond)
			_, err = f.token(vault)
			require.NoError(t, err, "the binding at hand is tried again, and taken")
			require.Equal(t, 3, f.server.Counts().Issued)
		})
	}
}

// An error says what recovery did: each outcome has a word of its own.
func TestRecoveryOfAFailure(t *testing.T) {
	refused := imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48)}
	unavailable := imdstest.Respond{Status: http.StatusServiceUnavailable}
	entraDown := imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Respond{Status: http.StatusBadRequest}}
	for name, test := range map[string]struct {
		spoil  func(f *fixture)
		want   azmtls.Recovery
		issued int
	}{
		"Entra says no": {func(f *fixture) { f.server.Inject(entraDown) }, azmtls.RecoveryNone, 0},
		"refused, and IMDS is down": {func(f *fixture) {
			f.server.Inject(refused)
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: unavailable})
		}, azmtls.RecoveryUnreplaced, 0},
		"refused, and the next one meets another failure": {func(f *fixture) {
			f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
			f.server.Inject(entraDown)
		}, azmtls.RecoveryFailed, 1},
		"refused, as is the next one": {func(f *fixture) { f.server.Inject(refused) }, azmtls.RecoveryRefused, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, imdstest.Options{}, nil)
			f.plant()
			test.spoil(f)
			_, err := f.token(vault)
			var failed *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, test.want, failed.Recovery)
			require.Equal(t, test.issued, f.server.Counts().Issued)
		})
	}
}
