package azmtls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// A mistake is something that goes wrong, and the error that tells.
type mistake struct {
	name string
	make func(*testing.T) error
}

type mistakesOf struct {
	title    string
	mistakes []mistake
}

func mistakes() []mistakesOf {
	return []mistakesOf{
		{"Input", inputMistakes()},
		{"Finding IMDS", absenceMistakes()},
		{"IMDS", imdsMistakes()},
		{"Keys and attestation", keyMistakes()},
		{"Certificates", certificateMistakes()},
		{"The way to Entra", networkMistakes()},
		{"Entra", entraMistakes()},
		{"Recovery", recoveryMistakes()},
		{"ManagedIdentityCredential", fallbackMistakes()},
	}
}

type edit = func(*azmtls.ImdsV2MtlsCredentialOptions)

// with provokes a mistake by options and a fault.
func with(name string, edit edit, faults ...imdstest.Fault) mistake {
	return mistake{name, func(t *testing.T) error {
		f := newFixture(t, imdstest.Options{}, edit)
		for _, fault := range faults {
			f.server.Inject(fault)
		}
		_, err := f.token(vault)
		return err
	}}
}

func bound(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP }

func named(o *azmtls.ImdsV2MtlsCredentialOptions) { o.ID = azidentity.ClientID(anotherID) }

func inputMistakes() []mistake {
	get := func(name string, o policy.TokenRequestOptions) mistake {
		return mistake{name, func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			_, err := f.cred.GetToken(t.Context(), o)
			require.Zero(t, f.server.Counts())
			return err
		}}
	}
	return []mistake{
		get("no scope", policy.TokenRequestOptions{}),
		get("two scopes", policy.TokenRequestOptions{Scopes: []string{vault, storage}}),
		get("two scopes in one", policy.TokenRequestOptions{Scopes: []string{vault + " " + storage}}),
		get("an empty scope", policy.TokenRequestOptions{Scopes: []string{"/.default"}}),
		get("claims that are no JSON", policy.TokenRequestOptions{Scopes: []string{vault}, Claims: "x"}),
		{"no context", func(t *testing.T) error {
			var none context.Context
			_, err := newFixture(
				t,
				imdstest.Options{},
				nil,
			).cred.GetToken(
				none,
				policy.TokenRequestOptions{Scopes: []string{vault}},
			)
			return err
		}},
		{"no credential", func(t *testing.T) error {
			_, err := (*azmtls.ImdsV2MtlsCredential)(
				nil,
			).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
			return err
		}},
		{"a credential that was not made", func(t *testing.T) error {
			_, err := new(azmtls.ImdsV2MtlsCredential).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
			return err
		}},
		{"a context that has ended", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Hang{}})
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{vault}})
			return err
		}},
	}
}

func imdsSays(endpoint imdstest.Endpoint, status int, body string) imdstest.Fault {
	return imdstest.Fault{Endpoint: endpoint, Do: imdstest.Respond{Status: status, Body: body}}
}

func absenceMistakes() []mistake {
	return []mistake{
		{"nothing listens", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.Transport = &http.Client{Transport: &http.Transport{
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connect: connection refused")}
					},
				}}
			})
			_, err := f.token(vault)
			return err
		}},
		{"nothing answers", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.clock.Manual()
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Hang{}})
			return f.passes(f.get(t.Context(), vault))
		}},
		with("a container proxy answers", nil, imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{
			Status: 403, Body: "connecting to 169.254.169.254:80: unreachable network", Header: http.Header{"Server": nil},
		}}),
		with("another cloud answers", nil, imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{
			Status: 401, Header: http.Header{"Server": {"EC2ws"}},
		}}),
		with("IMDS without version 2", nil, imdsSays(imdstest.Metadata, 404, "")),
		with("no identity on this machine", nil,
			imdsSays(imdstest.Metadata, 400, `{"error":"invalid_request","error_description":"Identity not found"}`)),
		with("a key that IMDS does not certify", nil,
			imdsSays(imdstest.Issue, 403, `{"error":{"code":"KeyNotAttested","message":"The key is not attested"}}`)),
	}
}

func imdsMistakes() []mistake {
	return []mistake{
		with("an identity that is not on this machine", named,
			imdsSays(imdstest.Metadata, 400, `{"error":"invalid_request","error_description":"Identity not found"}`)),
		with("throttled", nil, imdsSays(imdstest.Metadata, 429, `{"message":"Too many requests","correlationId":"imds-7"}`)),
		with("throttled for long", nil, imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{
			Status: 429, RetryAfter: 2 * time.Minute,
		}}),
		{"throttled for long, the next call", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.server.Inject(
				imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 429, RetryAfter: 2 * time.Minute}},
			)
			_, _ = f.token(vault)
			_, err := f.token(vault)
			return err
		}},
		with("ill", nil, imdsSays(imdstest.Issue, 500, "Internal failure\nat stack trace line 1")),
		with("being updated", nil, imdsSays(imdstest.Metadata, 410, "")),
		with("a redirect", nil, imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Redirect()}),
		with("malformed JSON", nil, imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Malformed()}),
		with("more than 1 MiB", nil, imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Oversized()}),
		with("an answer that is cut short", nil,
			imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.Truncate{}}),
		with("metadata without tenantId", nil, changed(imdstest.Metadata, "tenantId", nil)),
		with("an attestation endpoint that is not https", nil,
			changed(imdstest.Metadata, "attestationEndpoint", "http://attest.example")),
		with("the key refused, and proof of possession demanded", bound,
			imdsSays(imdstest.Issue, 403, `{"error":"bad_key","message":"The key is not attested"}`)),
		{"a deadline while IMDS is silent", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.clock.Manual()
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Hang{}})
			return f.givesUp(t)
		}},
		{"IMDS silent to the end", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.clock.Manual()
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Hang{}})
			return f.passes(f.get(t.Context(), vault))
		}},
	}
}

// givesUp asks for a token with a deadline that passes when the fault has struck.
func (f *fixture) givesUp(t *testing.T) error {
	ctx := &expiring{Context: t.Context(), done: make(chan struct{})}
	done := f.get(ctx, vault)
	require.Eventually(t, func() bool { return f.server.Counts().Faults == 1 }, 10*time.Second, time.Millisecond)
	close(ctx.done)
	return <-done
}

// changed is a fault that sets a member of an answer, or removes it.
func changed(endpoint imdstest.Endpoint, member string, value any) imdstest.Fault {
	return imdstest.Fault{Endpoint: endpoint, At: imdstest.AtAnswer, Do: imdstest.Edit(func(body map[string]any) {
		if value == nil {
			delete(body, member)
		} else {
			body[member] = value
		}
	})}
}

type attestFunc func() (string, error)

func (f attestFunc) Attest(context.Context, mtls.AttestationRequest) (string, error) { return f() }

func keyMistakes() []mistake {
	keyed := func(name string, provider mtls.KeyProvider) mistake {
		return with(name, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.KeyProvider = provider })
	}
	attested := func(name string, f attestFunc) mistake {
		return with(name, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Attestation = f })
	}
	return []mistake{
		with(
			"a key that is too weak",
			func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.MinBindingStrength = mtls.StrengthTPM },
		),
		keyed("a key provider that fails", &keys{err: errors.New("no TPM here")}),
		keyed("a key provider without a key", nilKeys{}),
		keyed("a key provider that panics", keyFunc(func(context.Context) (mtls.Key, error) { panic("bug") })),
		keyed("a key that never signs", &keys{broken: func() error { return errors.New("NTE_BAD_KEYSET") }}),
		attested("attestation that fails", func() (string, error) { return "", errors.New("VBS is off") }),
		attested("attestation without a token", func() (string, error) { return " \n", nil }),
		attested("attestation that panics", func() (string, error) { panic("bug") }),
	}
}

func certificateMistakes() []mistake {
	issued := func(name string, o imdstest.Options) mistake {
		return mistake{name, func(t *testing.T) error {
			_, err := newFixture(t, o, nil).token(vault)
			return err
		}}
	}
	edited := func(name string, edit func(*x509.Certificate)) mistake {
		return issued(name, imdstest.Options{EditCertificate: edit})
	}
	return []mistake{
		issued("expired when issued", imdstest.Options{CertificateLifetime: -time.Hour}),
		edited("not valid yet", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),
		edited("for another client", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: anotherID} }),
		edited("that may not sign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
		edited("for servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		with(
			"for another key",
			nil,
			imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}},
		),
		with("no certificate", nil, changed(imdstest.Issue, "certificate", "!")),
		with("another client id than the metadata's", nil, changed(imdstest.Issue, "client_id", anotherID)),
		with("a token endpoint that is not https", nil,
			changed(imdstest.Issue, "mtls_authentication_endpoint", "http://mtlsauth.example")),
	}
}

func networkMistakes() []mistake {
	over := func(name string, edit func(*testing.T, *http.Transport)) mistake {
		return mistake{name, func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { edit(t, o.MTLSTransport) })
			_, err := f.token(vault)
			return err
		}}
	}
	dial := func(err error) func(*testing.T, *http.Transport) {
		return func(_ *testing.T, h *http.Transport) {
			h.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, err }
		}
	}
	served := func(name string, certificate func(*impostorCertificates) tls.Certificate) mistake {
		return over(name, func(t *testing.T, h *http.Transport) {
			server := httptest.NewUnstartedServer(http.NotFoundHandler())
			server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(impostors())}}
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			t.Cleanup(server.Close)
			h.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
			}
			h.TLSClientConfig.RootCAs = x509.NewCertPool()
			h.TLSClientConfig.RootCAs.AddCert(impostors().root)
		})
	}
	proxy := func(name string, address func(*testing.T) string) mistake {
		return over(name, func(t *testing.T, h *http.Transport) {
			u, err := url.Parse("http://" + address(t))
			require.NoError(t, err)
			h.Proxy = http.ProxyURL(u)
		})
	}
	return []mistake{
		over("refused", dial(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connect: connection refused")})),
		over("an unknown host", dial(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
			Err: "no such host", Name: "westus.mtlsauth.microsoft.com", IsNotFound: true,
		}})),
		over("a dialer of the caller's that finds no host", dial(&net.DNSError{
			Err: "no such host", Name: "westus.mtlsauth.microsoft.com", IsNotFound: true,
		})),
		served("an authority that is not trusted", func(c *impostorCertificates) tls.Certificate { return c.untrusted }),
		served("a certificate that has expired", func(c *impostorCertificates) tls.Certificate { return c.expired }),
		served("a certificate for another host", func(c *impostorCertificates) tls.Certificate { return c.misnamed }),
		proxy("a proxy that refuses", func(t *testing.T) string {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "this host is not allowed", http.StatusServiceUnavailable)
			}))
			t.Cleanup(server.Close)
			return server.Listener.Addr().String()
		}),
		proxy("a proxy that is gone", func(*testing.T) string { return "127.0.0.1:1" }),
		with("a connection that is closed each time", nil,
			imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtHello, Do: imdstest.EOF{}}),
		{"Entra silent to the end", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.clock.Manual()
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
			return f.passes(f.get(t.Context(), vault))
		}},
		{"a deadline while Entra is silent", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.clock.Manual()
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Hang{}})
			return f.givesUp(t)
		}},
	}
}

func entraMistakes() []mistake {
	says := func(name string, edit edit, oauth, code string) mistake {
		return with(name, edit, imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: oauth, AADSTS: code}})
	}
	answers := func(name string, r imdstest.Respond) mistake {
		return with(name, nil, imdstest.Fault{Endpoint: imdstest.Token, Do: r})
	}
	return []mistake{
		says("an identity that Entra does not know", nil, "unauthorized_client", "AADSTS700016"),
		says("a resource that the tenant does not have", nil, "invalid_scope", "AADSTS500011"),
		says("a resource that binds no tokens, and proof of possession demanded", bound, "invalid_request", "AADSTS392196"),
		answers("conditional access", imdstest.Respond{Status: 400, Body: `{"error":"interaction_required",` +
			`"error_description":"AADSTS53003: Access has been blocked by Conditional Access policies.\r\nTrace ID: x",` +
			`"error_codes":[53003],"claims":"{\"access_token\":{}}"}`, Header: jsonHeader}),
		answers("throttled", imdstest.Respond{Status: 429, RetryAfter: 2 * time.Minute, Body: "Too many requests"}),
		answers("a gateway's page", imdstest.Respond{Status: 502, Body: "<html><title>Bad gateway</title>"}),
		answers("endless text", imdstest.Respond{
			Status: 400, Body: `{"error":"bad","error_description":"AADSTS90014: \u001b[31m` + strings.Repeat("x", 900<<10) + `"}`, Header: jsonHeader,
		}),
		answers("malformed JSON", imdstest.Respond{Status: 200, Body: `{"access_token":"eyJ`}),
		with("a downgrade", bound, changed(imdstest.Token, "token_type", "Bearer")),
		with("no type of token", nil, changed(imdstest.Token, "token_type", nil)),
		with("no lifetime", nil, changed(imdstest.Token, "expires_in", nil)),
	}
}

var jsonHeader = http.Header{"Content-Type": {"application/json"}}

func recoveryMistakes() []mistake {
	always := imdstest.Fault{
		Endpoint: imdstest.Token,
		Do:       imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"},
	}
	return []mistake{
		with("refused, and the next binding too", nil, always),
		{"refused once more soon after", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			f.server.Inject(always)
			_, _ = f.token(vault)
			_, err := f.token(vault)
			return err
		}},
		{"refused, and no other to be had", func(t *testing.T) error {
			f := newFixture(t, imdstest.Options{}, nil)
			_, err := f.token(storage)
			require.NoError(t, err)
			f.server.Inject(always)
			f.server.Inject(imdsSays(imdstest.Issue, 500, "ill"))
			_, err = f.token(vault)
			return err
		}},
		with("a certificate alert each time", nil,
			imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(44)}),
	}
}
