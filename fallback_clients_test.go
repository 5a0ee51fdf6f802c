package azmtls_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// bound returns a client that is bound to the credential, and what its own Transport sent.
func (m *managed) bound() (runtime.Pipeline, *[]http.Header) {
	own := &[]http.Header{}
	client := &http.Client{Transport: m.server.MTLSTransport()}
	options := &azcore.ClientOptions{
		Retry: policy.RetryOptions{MaxRetries: -1},
		Transport: transporter(func(req *http.Request) (*http.Response, error) {
			*own = append(*own, req.Header.Clone())
			return client.Do(req)
		}),
	}
	// As popPolicy does for Key Vault, for any host.
	options.PerCallPolicies = []policy.Policy{policyFunc(func(req *policy.Request) (*http.Response, error) {
		req.Raw().Header.Set("x-ms-tokenboundauth", "true")
		return req.Next()
	})}
	m.cred.BindClientOptions(options)
	return runtime.NewPipeline("test", "v1", runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(m.cred, []string{newScope()}, nil)},
	}, options), own
}

// A bound client sends proof of possession while v2 serves, and bearer tokens of v1 over its own Transport where that
// does.
func TestManagedIdentityBindsClients(t *testing.T) {
	m := newManaged(t, imdstest.Options{ResourceHandler: echo}, nil)
	client, own := m.bound()
	_, body, err := send(t.Context(), client, http.MethodGet, m.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, "mtls_pop ", body)
	require.Empty(t, *own)
	m.noRejections()

	m = newManaged(t, imdstest.Options{ResourceHandler: echo}, nil)
	m.server.Inject(noV2)
	client, own = m.bound()
	_, body, err = send(t.Context(), client, http.MethodGet, m.server.ResourceURL(), "")
	require.NoError(t, err)
	require.Equal(t, "Bearer ", body)
	require.Len(t, *own, 1)
	m.noRejections()
}

// A bound token that a client still holds is swapped for one of v1 when v2 cannot give another: for an old one, and in
// recovery, in the middle of a request. The request then goes out as one without proof of possession.
func TestManagedIdentitySwapsBoundTokens(t *testing.T) {
	for name, spoil := range map[string]func(m *managed){
		"old": func(m *managed) { m.clock.Advance(59 * time.Minute) },
		"refused": func(m *managed) {
			m.clock.Advance(6 * time.Minute) // the host is not known any more as one that takes this binding
			m.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtCertificate, Do: imdstest.Alert(42), Times: 1})
			m.server.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 403}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, imdstest.Options{ResourceHandler: echo}, nil)
			client, own := m.bound()
			_, body, err := send(t.Context(), client, http.MethodGet, m.server.ResourceURL(), "")
			require.NoError(t, err)
			require.Equal(t, "mtls_pop ", body)
			m.cred.Close() // idle connections
			spoil(m)
			m.server.Inject(entraFails)
			_, body, err = send(t.Context(), client, http.MethodPut, m.server.ResourceURL(), "payload")
			require.NoError(t, err)
			require.Equal(t, "Bearer payload", body)
			require.Len(t, *own, 1)
			require.NotContains(t, (*own)[0], "X-Ms-Tokenboundauth")
			require.Equal(t, 1, m.server.Counts().V1Issued)
			m.noRejections()
		})
	}
}

// Client has tokens of whoever serves.
func TestManagedIdentityClient(t *testing.T) {
	for want, faults := range map[string][]imdstest.Fault{"mtls_pop ": nil, "Bearer ": {noV2}} {
		m := newManaged(t, imdstest.Options{ResourceHandler: echo}, nil)
		for _, fault := range faults {
			m.server.Inject(fault)
		}
		resp, err := m.cred.Client(newScope()).Get(m.server.ResourceURL())
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, string(body))
		m.noRejections()
	}
}

// A bound token and its binding are v2's. While v1 serves there is none, and the error has the cause.
func TestManagedIdentityBoundToken(t *testing.T) {
	opts := policy.TokenRequestOptions{Scopes: []string{newScope()}}
	m := newManaged(t, imdstest.Options{}, nil)
	token, binding, err := m.cred.GetBoundToken(t.Context(), opts)
	require.NoError(t, err)
	require.NotEmpty(t, token.Token)
	require.Equal(t, m.store.get(alias).Thumbprint(), binding.Thumbprint())
	again, _, err := m.cred.GetBoundToken(t.Context(), opts)
	require.NoError(t, err)
	require.Equal(t, token.Token, again.Token)

	for name, fault := range map[string]imdstest.Fault{"no version 2": noV2, "403": {
		Endpoint: imdstest.Issue, Do: imdstest.Respond{Status: 403},
	}} {
		m := newManaged(t, imdstest.Options{}, nil)
		remove := m.server.Inject(fault)
		for range 2 { // the second call meets the outage
			_, _, err = m.cred.GetBoundToken(t.Context(), opts)
			require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported)
			require.ErrorContains(t, err, name)
			var failed *azmtls.AuthenticationError
			require.ErrorAs(t, err, &failed)
		}
		require.Equal(t, 1, m.server.Counts().Metadata)
		require.Zero(t, m.server.Counts().V1)
		remove()
		m.clock.Advance(33 * time.Minute)
		_, _, err = m.cred.GetBoundToken(t.Context(), opts)
		require.ErrorIs(t, err, azmtls.ErrTokenBindingUnsupported, "v2 is asked in the background")
		require.Eventually(t, func() bool {
			_, _, err = m.cred.GetBoundToken(t.Context(), opts)
			return err == nil
		}, 10*time.Second, time.Millisecond)
	}
}
