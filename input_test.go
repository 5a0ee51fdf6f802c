package azmtls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

func TestConstructor(t *testing.T) {
	cred, err := azmtls.NewImdsV2MtlsCredential(nil)
	require.NoError(t, err)
	require.NoError(t, cred.Close())
	for name, test := range map[string]struct {
		options azmtls.ImdsV2MtlsCredentialOptions
		culprit string
	}{
		"token type":            {azmtls.ImdsV2MtlsCredentialOptions{TokenType: 7}, "TokenType(7)"},
		"strength":              {azmtls.ImdsV2MtlsCredentialOptions{MinBindingStrength: 4}, "MinBindingStrength"},
		"empty id":              {azmtls.ImdsV2MtlsCredentialOptions{ID: azidentity.ClientID("")}, "ID"},
		"id of an unknown kind": {azmtls.ImdsV2MtlsCredentialOptions{ID: strangeID{azidentity.ClientID(clientID)}}, "strangeID"},
		"id with a separator":   {azmtls.ImdsV2MtlsCredentialOptions{ID: azidentity.ResourceID("a|b")}, "'|'"},
		"template dials TLS": {azmtls.ImdsV2MtlsCredentialOptions{MTLSTransport: &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil },
		}}, "DialTLSContext"},
		"template without TLS":               {azmtls.ImdsV2MtlsCredentialOptions{MTLSTransport: &http.Transport{}}, "TLSClientConfig"},
		"template below TLS 1.2":             {azmtls.ImdsV2MtlsCredentialOptions{MTLSTransport: &http.Transport{TLSClientConfig: &tls.Config{MaxVersion: tls.VersionTLS11}}}, "MaxVersion"},
		"template with a certificate of own": {azmtls.ImdsV2MtlsCredentialOptions{MTLSTransport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: make([]tls.Certificate, 1)}}}, "certificate of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			cred, err := azmtls.NewImdsV2MtlsCredential(&test.options)
			require.ErrorContains(t, err, test.culprit)
			require.Nil(t, cred)
		})
	}
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "ftp://nowhere")
	_, err = azmtls.NewImdsV2MtlsCredential(nil)
	require.ErrorContains(t, err, "AZURE_POD_IDENTITY_AUTHORITY_HOST")
}

// Zero values of exported types are of no use, but they do not panic.
func TestZeroValues(t *testing.T) {
	require.NotEmpty(t, (&azmtls.AuthenticationError{}).Error())
	require.NotEmpty(t, (&mtls.Refusal{}).Error())
}

type strangeID struct{ azidentity.ManagedIDKind }

func TestScopes(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	for _, scopes := range [][]string{nil, {vault, storage}, {""}, {"/.default"}, {".default"}, {"https://a/.default https://b/.default"}} {
		_, err := f.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: scopes})
		var failure *azmtls.AuthenticationError
		require.ErrorAs(t, err, &failure, "%q", scopes)
		require.ErrorContains(t, err, "scope")
	}
	for _, claims := range []string{"no json", "[]", "null", `{"access_token": 5}`} {
		_, err := f.cred.GetToken(
			t.Context(),
			policy.TokenRequestOptions{Scopes: []string{vault}, Claims: claims, EnableCAE: true},
		)
		require.ErrorContains(t, err, "claims", "%q", claims)
	}
	require.Zero(t, f.server.Counts(), "no network call")
}

// A scope stands for its resource as it is spelled: one slash before ".default" is the resource's, as in MSAL.
func TestScopeIsSentAsItsResource(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	for scope, audience := range map[string]string{
		"https://vault.azure.net/.default":                    "https://vault.azure.net",
		"https://vault.azure.net":                             "https://vault.azure.net",
		"https://vault.azure.net/":                            "https://vault.azure.net/",
		"https://vault.azure.net//.default":                   "https://vault.azure.net/",
		"https://database.windows.net//.default":              "https://database.windows.net/",
		"11111111-aaaa-bbbb-cccc-222222222222/.default":       "11111111-aaaa-bbbb-cccc-222222222222",
		"11111111-aaaa-bbbb-cccc-222222222222":                "11111111-aaaa-bbbb-cccc-222222222222",
		"api://11111111-aaaa-bbbb-cccc-222222222222/.default": "api://11111111-aaaa-bbbb-cccc-222222222222",
		"api://name": "api://name",
	} {
		token, err := f.token(scope)
		require.NoError(t, err, scope)
		claims := jwt.MapClaims{}
		_, _, err = jwt.NewParser().ParseUnverified(token.Token, claims)
		require.NoError(t, err)
		require.Equal(t, audience, claims["aud"], scope)
	}
	f.noRejections()
}

func TestKeys(t *testing.T) {
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.MinBindingStrength = mtls.StrengthTPM },
	)
	_, err := f.token(vault)
	require.ErrorContains(t, err, "strength software where MinBindingStrength demands TPM")
	_, err = f.token(vault)
	require.ErrorContains(t, err, "nothing was tried", "the cause comes at once")
	f.keys.err = errors.New("no TPM here")
	f.clock.Advance(2 * time.Second)
	_, err = f.token(vault)
	require.ErrorIs(t, err, f.keys.err)
	require.Zero(t, f.server.Counts(), "no network call")
	nothing := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.KeyProvider = nilKeys{} })
	_, err = nothing.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
	require.ErrorContains(t, err, "nil Key")
	require.Equal(
		t,
		imdstest.Counts{Metadata: 1},
		f.server.Counts(),
		"without a demand, a key is made only where IMDS v2 is",
	)

	f.keys.err = nil
	weak := f.plant().Thumbprint()
	f.clock.Advance(5 * time.Second)
	_, err = f.token(vault)
	require.ErrorContains(t, err, "MinBindingStrength", "a binding from the store is held to it as well")
	require.Equal(t, 1, f.server.Counts().Metadata)

	f.keys.strength = mtls.StrengthTPM
	f.clock.Advance(10 * time.Second)
	_, err = f.token(vault)
	require.NoError(t, err, "it is not in the way of a stronger one")
	require.Equal(t, 1, f.server.Counts().Issued)
	require.Zero(t, f.server.Presented(weak))
	require.Zero(t, f.store.evicted(), "it may be good enough for another credential")
}

type nilKeys struct{}

func (nilKeys) Key(context.Context) (mtls.Key, error) { return nil, nil }

// A provider or store that cannot be compared must neither panic nor be mistaken for another.
func TestUncomparableOptions(t *testing.T) {
	f := newFixture(t, imdstest.Options{}, nil)
	cache := &mtls.Cache{}
	for range 2 {
		cred := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) {
			o.Cache, o.KeyProvider, o.Store = cache, keyFunc(f.keys.Key), listStore{entries: []string{}}
		})
		_, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
		require.NoError(t, err)
	}
	require.Equal(t, 2, f.server.Counts().Issued)
}

type keyFunc func(context.Context) (mtls.Key, error)

func (k keyFunc) Key(ctx context.Context) (mtls.Key, error) { return k(ctx) }

type listStore struct {
	mtls.NoStore
	entries []string
}

// What IMDS answers is checked field by field: the error names the culprit, and nothing is kept.
func TestBadAnswersOfIMDS(t *testing.T) {
	set := func(name string, value any) func(map[string]any) { return func(m map[string]any) { m[name] = value } }
	without := func(name string) func(map[string]any) { return func(m map[string]any) { delete(m, name) } }
	edit := func(e imdstest.Endpoint, f func(map[string]any)) imdstest.Fault {
		return imdstest.Fault{Endpoint: e, At: imdstest.AtAnswer, Do: imdstest.Edit(f)}
	}
	for name, test := range map[string]struct {
		fault   imdstest.Fault
		culprit string
	}{
		"metadata malformed":           {imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Malformed()}, "malformed"},
		"metadata oversized":           {imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Oversized()}, "1 MiB"},
		"metadata redirected":          {imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Redirect()}, "redirect"},
		"metadata without clientId":    {edit(imdstest.Metadata, without("clientId")), "clientId"},
		"metadata without tenantId":    {edit(imdstest.Metadata, without("tenantId")), "tenantId"},
		"metadata with a bad tenantId": {edit(imdstest.Metadata, set("tenantId", "a/../b")), "tenantId"},
		"metadata without cuId":        {edit(imdstest.Metadata, without("cuId")), "cuId"},
		"metadata without attestation": {edit(imdstest.Metadata, without("attestationEndpoint")), "attestationEndpoint"},
		"metadata refused":             {imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: 403, Body: `{"error":"forbidden"}`}}, "403"},
		"issue malformed":              {imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Malformed()}, "malformed"},
		"issue oversized":              {imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Oversized()}, "1 MiB"},
		"issue redirected":             {imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Redirect()}, "redirect"},
		"issue without client_id":      {edit(imdstest.Issue, without("client_id")), "client_id"},
		"issue with a bad client_id":   {edit(imdstest.Issue, set("client_id", "me")), "client_id"},
		"issue without tenant_id":      {edit(imdstest.Issue, without("tenant_id")), "tenant_id"},
		"issue with a bad tenant_id":   {edit(imdstest.Issue, set("tenant_id", "a?b")), "tenant_id"},
		"issue without certificate":    {edit(imdstest.Issue, without("certificate")), "certificate"},
		"issue without identity_type":  {edit(imdstest.Issue, without("identity_type")), "identity_type"},
		"issue without endpoint":       {edit(imdstest.Issue, without("mtls_authentication_endpoint")), "mtls_authentication_endpoint"},
		"certificate not base64":       {edit(imdstest.Issue, set("certificate", "*")), "certificate"},
		"certificate not DER":          {edit(imdstest.Issue, set("certificate", "AAAA")), "certificate"},
		"http endpoint":                {edit(imdstest.Issue, set("mtls_authentication_endpoint", "http://host")), "not https"},
		"userinfo in the endpoint":     {edit(imdstest.Issue, set("mtls_authentication_endpoint", "https://me@host")), "userinfo"},
		"query in the endpoint":        {edit(imdstest.Issue, set("mtls_authentication_endpoint", "https://host?q")), "query"},
		"fragment in the endpoint":     {edit(imdstest.Issue, set("mtls_authentication_endpoint", "https://host#")), "fragment"},
		"endpoint without host":        {edit(imdstest.Issue, set("mtls_authentication_endpoint", "https://")), "host"},
		"certificate for another key":  {imdstest.Fault{Endpoint: imdstest.Issue, At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}}, "another key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, imdstest.Options{}, nil)
			f.server.Inject(test.fault)
			_, err := f.token(vault)
			var failure *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failure)
			require.ErrorContains(t, err, test.culprit)
			require.Zero(t, f.server.Counts().Token, "nothing is sent to Entra")
			require.Nil(t, f.store.get(alias), "nothing is kept")
			require.Empty(t, f.server.Rejections(), "no redirect is followed")
		})
	}
	for name, test := range map[string]struct {
		options imdstest.Options
		culprit string
	}{
		"CN no GUID":      {imdstest.Options{EditCertificate: func(c *x509.Certificate) { c.Subject.CommonName = "web server" }}, "CN"},
		"expired already": {imdstest.Options{CertificateLifetime: -time.Hour}, "expired"},
		"window shut":     {imdstest.Options{TokenNotAfter: -time.Hour}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, test.options, nil)
			_, err := f.token(vault)
			require.ErrorContains(t, err, test.culprit)
			require.Zero(t, f.server.Counts().Token)
			require.Nil(t, f.store.get(alias))
		})
	}
}

func TestBadAnswersOfEntra(t *testing.T) {
	for name, edit := range map[string]func(map[string]any){
		"token_type":   func(m map[string]any) { m["token_type"] = "Bearer" },
		"names no":     func(m map[string]any) { delete(m, "token_type") },
		"access_token": func(m map[string]any) { delete(m, "access_token") },
		"expires_in":   func(m map[string]any) { delete(m, "expires_in") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(
				t,
				imdstest.Options{},
				func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.TokenType = azmtls.TokenTypeMtlsPoP },
			)
			remove := f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtAnswer, Do: imdstest.Edit(edit)})
			_, err := f.token(vault)
			require.ErrorContains(t, err, map[string]string{"token_type": "downgrade"}[name])
			require.ErrorContains(t, err, strings.TrimSuffix(name, "token_type"))
			remove()
			_, err = f.token(vault)
			require.NoError(t, err)
			require.Equal(t, 2, f.server.Counts().TokenIssued, "the first one was not cached")
			require.Equal(t, 1, f.server.Counts().Issued)
		})
	}
	f := newFixture(t, imdstest.Options{}, nil)
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtAnswer, Do: imdstest.Edit(func(m map[string]any) {
			m["token_type"], m["expires_in"], m["refresh_in"] = "BEARER", "3599", nil
		})},
	)
	token, err := f.token(vault)
	require.NoError(t, err, "the case of token_type does not matter, and numbers may come as strings")
	require.InDelta(t, 3599/2, time.Until(token.RefreshOn).Seconds(), 10, "half-way, without advice")
	require.InDelta(t, 3599, time.Until(token.ExpiresOn).Seconds(), 10)
}

// TestSecretsStayOut: whatever is logged or said in errors, in good and in bad times, holds no token, key, certificate
// request or full identifier.
func TestSecretsStayOut(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	hunt.Listen(t, func(_ log.Event, message string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, message)
	})
	f := newFixture(t, imdstest.Options{RequireAttestation: true}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.ID = azidentity.ClientID(assigned)
		o.Attestation = attestation("secret-attestation-jwt")
		o.Logging.IncludeBody = true
	})
	token, err := f.token(vault)
	require.NoError(t, err)
	f.server.Inject(
		imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}},
	)
	_, err = f.token(storage)
	require.Error(t, err)
	f.server.Close()
	gone := f.another(func(o *azmtls.ImdsV2MtlsCredentialOptions) {
		o.ID = azidentity.ResourceID("/subscriptions/secret-subscription")
	})
	_, unavailable := gone.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{vault}})
	require.ErrorContains(t, unavailable, "nothing listens")
	mu.Lock()
	lines = append(lines, err.Error(), unavailable.Error())
	all := strings.Join(lines, "\n")
	mu.Unlock()
	require.Contains(t, all, "evicted binding")
	for _, secret := range []string{
		token.Token, "secret-attestation-jwt", "attestation_token", `"csr"`, assigned, tenant, "secret-subscription",
	} {
		require.NotContains(t, all, secret)
	}
}

type attestation string

func (a attestation) Attest(_ context.Context, r mtls.AttestationRequest) (string, error) {
	if r.Key == nil || r.Endpoint == "" || r.ClientID == "" {
		return "", errors.New("incomplete request")
	}
	if a == "fail" {
		return "", errors.New("the TPM is not attested")
	}
	return string(a), nil
}

func TestAttestation(t *testing.T) {
	f := newFixture(
		t,
		imdstest.Options{RequireAttestation: true},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Attestation = attestation("jwt") },
	)
	_, err := f.token(vault)
	require.NoError(t, err)
	require.NotNil(
		t,
		f.store.get("system_assigned_managed_identity#att=1"),
		"attested bindings have an alias of their own",
	)
	for _, provider := range []attestation{"", "fail"} {
		f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.Attestation = provider })
		_, err := f.token(vault)
		require.ErrorContains(t, err, "attest")
		require.Zero(t, f.server.Counts().Issue, "no silent downgrade")
	}
}

func TestUserAssignedIdentities(t *testing.T) {
	const resource = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/a b&c"
	for _, id := range []azidentity.ManagedIDKind{
		azidentity.ClientID(assigned),
		azidentity.ObjectID("33333333-4444-5555-6666-777777777777"),
		azidentity.ResourceID(resource),
	} {
		f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.ID = id })
		_, err := f.token(vault)
		require.NoError(t, err)
		require.NotNil(t, f.store.get(id.String()+"#att=0"))
		f.noRejections()
	}
}

var _ azcore.TokenCredential = (*azmtls.ImdsV2MtlsCredential)(nil)
