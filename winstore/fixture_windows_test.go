package winstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
	"unsafe"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

const capiProvider = "Microsoft Enhanced RSA and AES Cryptographic Provider"

// persistedKey makes a key of CryptoAPI that lasts until the test ends. It is the one kind that outlives its process
// under Wine.
func persistedKey(t testing.TB) *key {
	name := "azmtls-test-" + uuid.NewString()
	k, err := newCAPIKey(name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = k.Close()
		deleteCAPIKey(name, capiProvider, windows.PROV_RSA_AES)
	})
	return k
}

func newCAPIKey(name string) (*key, error) {
	native, err := generateCAPIKey(name, capiProvider, windows.PROV_RSA_AES, keyBits)
	if err != nil {
		return nil, err
	}
	return newKey(
		native,
		mtls.StrengthSoftware,
		container{provider: capiProvider, name: name, providerType: windows.PROV_RSA_AES, keySpec: native.spec},
	)
}

func generateCAPIKey(name, provider string, providerType uint32, bits uintptr) (*capiKey, error) {
	const keyExchange = 1
	maker, err := acquireContext(name, provider, providerType, windows.CRYPT_NEWKEYSET)
	if err != nil {
		return nil, err
	}
	var generated windows.Handle
	generate := windows.NewLazySystemDLL("advapi32.dll").NewProc("CryptGenKey")
	ok, _, err := generate.Call(uintptr(maker), keyExchange, bits<<16, uintptr(unsafe.Pointer(&generated)))
	if ok == 0 {
		return nil, failed("CryptGenKey", err)
	}
	_ = cryptDestroyKey(generated)
	_ = windows.CryptReleaseContext(maker, 0) // Wine writes the key now
	opened, err := acquireContext(name, provider, providerType, 0)
	return &capiKey{provider: opened, spec: keyExchange}, err
}

func acquireContext(name, provider string, providerType, flags uint32) (opened windows.Handle, err error) {
	err = windows.CryptAcquireContext(
		&opened,
		windows.StringToUTF16Ptr(name),
		windows.StringToUTF16Ptr(provider),
		providerType,
		flags,
	)
	return opened, failed("CryptAcquireContext", err)
}

func deleteCAPIKey(name, provider string, providerType uint32) {
	_, _ = acquireContext(name, provider, providerType, windows.CRYPT_DELETEKEYSET)
}

// testAuthority issues certificates with the issuer's name of the real ones.
type testAuthority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newTestAuthority() (testAuthority, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return testAuthority{
		&x509.Certificate{
			Subject:      pkix.Name{CommonName: "managedidentitysnissuer.login.microsoft.com"},
			SerialNumber: big.NewInt(1),
		},
		k,
	}, err
}

const clientID = "d3adb33f-c0de-4ad0-8c0d-3adb33fc0de0"

// issue returns a certificate for a key.
func (a testAuthority) issue(
	public crypto.PublicKey,
	commonName string,
	notAfter time.Time,
	extensions ...pkix.Extension,
) (*x509.Certificate, error) {
	return a.issueFrom(public, commonName, notAfter.Add(-30*24*time.Hour), notAfter, extensions...)
}

func (a testAuthority) issueFrom(
	public crypto.PublicKey,
	commonName string,
	notBefore, notAfter time.Time,
	extensions ...pkix.Extension,
) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:    serial,
		Subject:         pkix.Name{CommonName: commonName},
		NotBefore:       notBefore,
		NotAfter:        notAfter,
		ExtraExtensions: extensions,
	}, a.certificate, public, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// fixture is a test's own part of CurrentUser\My: a key, and aliases that nobody else uses.
type fixture struct {
	*testing.T
	authority testAuthority
	key       *key
	alias     string
	now       time.Time
}

func newFixture(t *testing.T) *fixture {
	authority, err := newTestAuthority()
	require.NoError(t, err)
	f := &fixture{T: t, authority: authority, key: persistedKey(t), now: time.Now()}
	f.alias = f.newAlias(uuid.NewString())
	return f
}

// newAlias returns the alias; what is stored under it is deleted when the test ends.
func (f *fixture) newAlias(alias string) string {
	f.Cleanup(func() { require.NoError(f, Store{}.DeleteAll(context.Background(), alias)) })
	return alias
}

// certificate returns one of the authority's.
func (f *fixture) certificate(
	public crypto.PublicKey,
	commonName string,
	lifetime time.Duration,
	extensions ...pkix.Extension,
) *x509.Certificate {
	leaf, err := f.authority.issue(public, commonName, f.now.Add(lifetime), extensions...)
	require.NoError(f, err)
	return leaf
}

// bindingFor returns a binding that is good for this long.
func (f *fixture) bindingFor(lifetime time.Duration) *mtls.Binding {
	b, err := mtls.NewBinding(f.certificate(f.key.Public(), clientID, lifetime), f.key, testEndpoint, clientID)
	require.NoError(f, err)
	return b
}

func (f *fixture) save(b *mtls.Binding) {
	require.NoError(f, save(f.alias, b, f.now))
}

// loaded returns the thumbprint of the binding that the store gives, empty if it gives none.
func (f *fixture) loaded() string { return f.loadedAt(f.now) }

func (f *fixture) loadedAt(now time.Time) string {
	b, err := load(f.Context(), f.alias, now)
	if err != nil {
		require.ErrorIs(f, err, mtls.ErrNotFound)
		return ""
	}
	require.NoError(f, b.Certificate.PrivateKey.(*key).Close())
	return b.Thumbprint()
}

// plantAs stores a binding's certificate under an alias, whatever else is there.
func (f *fixture) plantAs(alias string, b *mtls.Binding) { f.plantIn(alias, b, f.key.container) }

// plantIn does so with another link to the key, or none.
func (f *fixture) plantIn(alias string, b *mtls.Binding, key container) {
	name, err := encodeName(alias, b.Endpoint)
	require.NoError(f, err)
	f.plant(name, b.Certificate.Leaf, key)
}

// plantCertificate does so with another endpoint.
func (f *fixture) plantCertificate(leaf *x509.Certificate, endpoint string) {
	f.plant("MSAL|alias="+f.alias+"|ep="+endpoint, leaf, f.key.container)
}

// plant stores a certificate as another program might.
func (f *fixture) plant(friendlyName string, leaf *x509.Certificate, key container) {
	require.NoError(f, plant(friendlyName, leaf.Raw, key))
	f.Cleanup(func() { _ = unplant(leaf.Raw) })
}

func plant(friendlyName string, der []byte, key container) error {
	return changeMy(func(m *my) error { return m.add(der, friendlyName, key) })
}

// count returns how often a certificate is stored, under whatever name.
func count(t testing.TB, of string) (n int) {
	m, err := openMy(windows.CERT_STORE_READONLY_FLAG)
	require.NoError(t, err)
	defer m.close()
	all, err := m.snapshot()
	require.NoError(t, err)
	defer all.free()
	for _, e := range all {
		if thumbprint(e.der()) == of {
			n++
		}
	}
	return n
}

func unplant(der []byte) error {
	return changeMy(func(m *my) error {
		all, err := m.snapshot()
		if err != nil {
			return err
		}
		defer all.free()
		return m.removeAll(all, func(e entry) bool { return bytes.Equal(e.der(), der) })
	})
}

// stored returns the thumbprints of what lies under the alias, usable or not.
func (f *fixture) stored(alias string) []string {
	found, err := storedUnder(alias)
	require.NoError(f, err)
	return found
}

func storedUnder(alias string) ([]string, error) {
	own, err := readMy(alias)
	if err != nil {
		return nil, err
	}
	defer own.free()
	thumbprints := []string{}
	for _, e := range own {
		thumbprints = append(thumbprints, thumbprint(e.der()))
	}
	return thumbprints, nil
}

func thumbprint(der []byte) string {
	return (&mtls.Binding{Certificate: tls.Certificate{Certificate: [][]byte{der}}}).Thumbprint()
}
