package azmtls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// The alarm is false, and the IMDS of a persistent key issues what it issued before. It is asked once to bypass its
// cache; where it cannot, the same certificate is used again, and counted. Tokens go on either way.
func TestFalseAlarmAndTheSameCertificate(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		for name, alarm := range map[string]imdstest.Fault{
			"invalid_client": {Do: invalidClient, Times: 1},
			"alert":          {At: imdstest.AtCertificate, Do: imdstest.Alert(46), Times: 1},
			"two resets":     {At: imdstest.AtCertificate, Do: imdstest.Reset{}, Times: 2},
		} {
			t.Run(fmt.Sprintf("%s, bypass refused %t", name, refuses), func(t *testing.T) {
				t.Parallel()
				options := imdstest.Options{ReissueSame: true, RefuseBypassCache: refuses, TokenLifetime: asked}
				f := newFixture(t, options, nil)
				_, err := f.asks(vault)
				require.NoError(t, err)
				first := f.store.get(alias).Thumbprint()
				alarm.Endpoint = imdstest.Token
				for n := 1; n <= 3; n++ {
					require.NoError(t, f.cred.Close())
					f.server.Inject(alarm)
					_, err = f.asks(vault)
					require.NoError(t, err)
					require.Equal(t, n, f.server.Counts().IssueBypass, "asked once for each alarm")
					require.Equal(t, n, f.store.evicted())
					require.Equal(t, refuses, f.store.get(alias).Thumbprint() == first)

					// It was counted: another alarm at once finds no unit, and the binding goes on being used.
					require.NoError(t, f.cred.Close())
					f.server.Inject(alarm)
					_, err = f.asks(vault)
					require.Error(t, err)
					require.Equal(t, n, f.store.evicted())
					require.Equal(t, n, f.server.Counts().IssueBypass)
					_, err = f.asks(vault)
					require.NoError(t, err)
					f.clock.Advance(time.Minute)
				}
				f.noRejections()
			})
		}
	}
}

// attester attests keys, and notes whether it was asked for a fresh attestation.
type attester struct {
	mu    sync.Mutex
	fresh []bool
}

func (a *attester) Attest(_ context.Context, r mtls.AttestationRequest) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fresh = append(a.fresh, r.Fresh)
	return fmt.Sprintf("jwt-%d", len(a.fresh)), nil
}

// Entra finds the attestation bad that IMDS issued the certificate on: neither an attestation nor a certificate of
// before is of use.
func TestBadAttestation(t *testing.T) {
	for _, code := range []string{"AADSTS1000610", "AADSTS1000611", "AADSTS1000612", "AADSTS1000613", "AADSTS1000614"} {
		for _, oauth := range []string{"invalid_client", "invalid_request"} {
			for _, tokenType := range []azmtls.TokenType{azmtls.TokenTypeBearer, azmtls.TokenTypeMtlsPoP} {
				t.Run(code+"/"+oauth+"/"+tokenType.String(), func(t *testing.T) {
					t.Parallel()
					a := &attester{}
					options := imdstest.Options{RequireAttestation: true}
					f := newFixture(t, options, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
						o.Attestation, o.TokenType = a, tokenType
					})
					answer := imdstest.EntraError{OAuth: oauth, AADSTS: code}
					f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: answer, Times: 1})
					_, err := f.asks(vault)
					require.NoError(t, err)
					require.Equal(t, 1, f.store.evicted())
					require.Equal(t, 2, f.server.Counts().Issue)
					require.Equal(t, 1, f.server.Counts().IssueBypass)
					require.Equal(t, []bool{false, true}, a.fresh)

					// The next eviction, for another reason, asks for nothing of the kind.
					f.clock.Advance(time.Minute)
					require.NoError(t, f.cred.Close())
					f.server.Refuse(f.store.get("system_assigned_managed_identity#att=1").Thumbprint(), 48)
					_, err = f.asks(storage)
					require.NoError(t, err)
					require.Equal(t, 1, f.server.Counts().IssueBypass)
					require.Equal(t, []bool{false, true, false}, a.fresh)
					f.noRejections()
				})
			}
		}
	}
}

// Another process met the refusal first, healed and stored its binding: it is taken over, at no cost.
func TestBindingHealedByAnotherProcess(t *testing.T) {
	refusals := map[string]func(f *fixture, bad string){
		"alert": func(f *fixture, bad string) { f.server.Refuse(bad, 48) },
		"invalid_client, nginx": func(f *fixture, bad string) {
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: invalidClient, Thumbprint: bad})
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: nginxRefuses, Thumbprint: bad})
		},
		"reset": func(f *fixture, bad string) {
			for _, endpoint := range []imdstest.Endpoint{imdstest.Token, imdstest.Resource} {
				f.server.Inject(imdstest.Fault{
					Endpoint: endpoint, At: imdstest.AtCertificate, Do: imdstest.Reset{}, Thumbprint: bad,
				})
			}
		},
	}
	for name, refuse := range refusals {
		for _, endpoint := range []imdstest.Endpoint{imdstest.Token, imdstest.Resource} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, endpoint, tls.VersionName(version)), func(t *testing.T) {
					t.Parallel()
					options := imdstest.Options{TLSVersion: version, TokenLifetime: asked, ResourceHandler: echo}
					f := newFixture(t, options, nil)
					call := func(cred *azmtls.ImdsV2MtlsCredential) {
						t.Helper()
						if endpoint == imdstest.Token {
							_, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
							require.NoError(t, err)
							return
						}
						options := &azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}
						cred.BindClientOptions(options)
						client := sdkClient(cred, options)
						_, body, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
						require.NoError(t, err)
						require.Equal(t, "mtls_pop ", body)
					}
					processes := []*azmtls.ImdsV2MtlsCredential{f.another(nil), f.another(nil), f.another(nil)}
					for _, cred := range processes {
						call(cred)
						require.NoError(t, cred.Close())
					}
					require.Equal(t, 1, f.server.Counts().Issued, "one binding for all")
					bad := f.store.get(alias).Thumbprint()
					f.clock.Advance(6 * time.Minute)
					refuse(f, bad)
					for _, cred := range processes {
						call(cred)
						require.NoError(t, cred.Close())
					}
					require.Equal(t, 2, f.server.Counts().Issued, "one minted, the others took that over")
					require.Equal(t, 1, f.store.evicted())
					healed := f.store.get(alias).Thumbprint()
					require.NotEqual(t, bad, healed)

					// It cost nothing: the next refusal finds the unit that it needs, in whichever process.
					f.clock.Advance(6 * time.Minute)
					refuse(f, healed)
					call(processes[2])
					require.Equal(t, 3, f.server.Counts().Issued)
					require.Equal(t, 2, f.store.evicted())
					f.noRejections()
				})
			}
		}
	}
}
