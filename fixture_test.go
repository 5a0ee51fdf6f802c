package azmtls_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

const (
	tenant   = "99999999-8888-7777-6666-555555555555"
	clientID = "11111111-2222-3333-4444-555555555555"
	assigned = "22222222-3333-4444-5555-666666666666" // the client id of a user-assigned identity
	alias    = "system_assigned_managed_identity#att=0"
	vault    = "https://vault.azure.net/.default"
	storage  = "https://storage.azure.com/.default"
)

// testKey is one key for all tests: RSA keys are slow to make, and the certificates differ.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// key is a software key that can be told to fail.
type key struct {
	*rsa.PrivateKey
	strength mtls.BindingStrength
	broken   func() error
}

func (k *key) Strength() mtls.BindingStrength { return k.strength }

// keys is a provider of testKey.
type keys struct {
	strength mtls.BindingStrength
	err      error
	broken   func() error // of the next key
}

func (k *keys) Key(context.Context) (mtls.Key, error) {
	if k.err != nil {
		return nil, k.err
	}
	strength := k.strength
	if strength == mtls.StrengthNone {
		strength = mtls.StrengthSoftware
	}
	return &key{PrivateKey: testKey(), strength: strength, broken: k.broken}, nil
}

// store is a Store in memory that counts evictions and can refuse to be cleaned.
type store struct {
	mu        sync.Mutex
	entries   map[string]*mtls.Binding
	evictions int
	stuck     bool
	onSave    func(*mtls.Binding)
}

func (s *store) Load(_ context.Context, alias string) (*mtls.Binding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.entries[alias]; b != nil {
		return b, nil
	}
	return nil, mtls.ErrNotFound
}

func (s *store) Save(_ context.Context, alias string, b *mtls.Binding) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck {
		return errors.New("the store is read-only")
	}
	if s.onSave != nil {
		s.onSave(b)
	}
	s.put(alias, b)
	return nil
}

func (s *store) put(alias string, b *mtls.Binding) {
	if s.entries == nil {
		s.entries = map[string]*mtls.Binding{}
	}
	s.entries[alias] = b
}

func (s *store) DeleteAll(_ context.Context, alias string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evictions++
	if s.stuck {
		return errors.New("the store is read-only")
	}
	delete(s.entries, alias)
	return nil
}

func (s *store) get(alias string) *mtls.Binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[alias]
}

func (s *store) evicted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictions
}

// fixture is a simulator and a credential for it.
type fixture struct {
	testing.TB
	server *imdstest.Server
	store  *store
	keys   *keys
	cred   *azmtls.ImdsV2MtlsCredential
	clock  *clock.Fake // of the simulator and the credential; waits take no time
}

// newFixture starts a simulator; edit may change the credential's options.
func newFixture(t testing.TB, options imdstest.Options, edit func(*azmtls.ImdsV2MtlsCredentialOptions)) *fixture {
	t.Helper()
	options.TenantID, options.ClientID = tenant, clientID
	f := &fixture{TB: t, store: &store{}, keys: &keys{}, clock: clock.NewFake(time.Now())}
	options.Time = f.clock.Wall
	f.server = imdstest.NewServer(&options)
	t.Cleanup(f.server.Close)
	f.cred = f.another(edit)
	return f
}

// another returns another credential for the same simulator, store and key provider.
func (f *fixture) another(edit func(*azmtls.ImdsV2MtlsCredentialOptions)) *azmtls.ImdsV2MtlsCredential {
	f.Helper()
	o := f.options()
	if edit != nil {
		edit(o)
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(o)
	require.NoError(f, err)
	f.Cleanup(func() {
		hunt.Values(cred.Status())
		require.NoError(f, cred.Close())
	})
	return cred
}

// options returns options for the simulator, with a cache of their own.
func (f *fixture) options() *azmtls.ImdsV2MtlsCredentialOptions {
	o := &azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: f.server.ClientOptions(),
		MTLSTransport: f.server.MTLSTransport(),
		KeyProvider:   f.keys,
		Store:         f.store,
		Cache:         &mtls.Cache{Clock: f.clock.Clock()},
	}
	o.Observer = func(e azmtls.Event) { hunt.Values(e, e.Err) }
	o.TracingProvider = hunt.TracingProvider()
	o.Retry = policy.RetryOptions{
		RetryDelay:    time.Microsecond,
		MaxRetryDelay: 5 * time.Microsecond,
	} // azcore's clock is the real one
	return o
}

func (f *fixture) token(scope string) (azcore.AccessToken, error) {
	return f.gets(policy.TokenRequestOptions{Scopes: []string{scope}})
}

// landed waits until nothing is under way, in the background either: whatever is has a limit, and so a timer.
func landed(t testing.TB, c *clock.Fake) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Waiting() == 0 }, 10*time.Second, 100*time.Microsecond)
}

// asks asks for a token that no cache gives out: claims bypass it.
func (f *fixture) asks(scope string) (azcore.AccessToken, error) {
	claims := `{"id_token":{"` + plantedClaim + `":null}}`
	return f.gets(policy.TokenRequestOptions{Scopes: []string{scope}, Claims: claims})
}

func (f *fixture) gets(opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := f.cred.GetToken(f.Context(), opts)
	hunt.Values(err)
	return token, err
}

// plant puts a binding for the system-assigned identity into the store, as an earlier process left it.
func (f *fixture) plant() *mtls.Binding {
	f.Helper()
	k, err := f.keys.Key(f.Context())
	require.NoError(f, err)
	leaf, err := f.server.IssueCertificate(k.Public(), clientID)
	require.NoError(f, err)
	b := &mtls.Binding{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: k, Leaf: leaf},
		Endpoint:    f.server.TokenURL() + "/" + tenant,
		ClientID:    clientID,
	}
	f.store.put(alias, b)
	return b
}

// resourceRefuses has the resource refuse the stored binding in the handshake.
func (f *fixture) resourceRefuses() {
	f.server.Inject(imdstest.Fault{
		Endpoint: imdstest.Resource, At: imdstest.AtCertificate, Do: imdstest.Alert(48),
		Thumbprint: f.store.get(alias).Thumbprint(),
	})
}

// noRejections fails the test when a request was not as the real services demand it.
func (f *fixture) noRejections() {
	f.Helper()
	require.Empty(f, f.server.Rejections())
}

func (k *key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.broken != nil {
		if err := k.broken(); err != nil {
			return nil, err
		}
	}
	return k.PrivateKey.Sign(rand, digest, opts)
}

// logged counts the lines of the log that hold a text, until the test ends.
func logged(t *testing.T, text string) (count func() int) {
	var mu sync.Mutex
	n := 0
	hunt.Listen(t, func(_ log.Event, line string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(line, text) {
			n++
		}
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}
