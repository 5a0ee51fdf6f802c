package mtls_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/secrets"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

const (
	testClientID = "11111111-2222-3333-4444-555555555555"
	testEndpoint = "https://eus.mtlsauth.example/99999999-8888-7777-6666-555555555555"
)

// testKey is one key for all certificates of these tests: RSA keys are slow to make and no test depends on which it is.
var testKey = sync.OnceValue(func() softKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return softKey{key}
})

type softKey struct{ *rsa.PrivateKey }

func (softKey) Strength() mtls.BindingStrength { return mtls.StrengthSoftware }

var serial atomic.Int64

// certificate returns a new self-signed certificate for the public key; edit may change its template.
func certificate(t testing.TB, public crypto.PublicKey, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)),
		Subject:      pkix.Name{CommonName: testClientID},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(7 * 24 * time.Hour),
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return leaf
}

// binding returns a new binding, each with a certificate of its own.
func binding(t testing.TB, edit func(*x509.Certificate)) *mtls.Binding {
	t.Helper()
	leaf := certificate(t, testKey().Public(), edit)
	return &mtls.Binding{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: testKey(), Leaf: leaf},
		Endpoint:    testEndpoint,
		ClientID:    testClientID,
	}
}

// starting has a certificate begin at this time from now.
func starting(d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore = time.Now().Add(d) }
}

// deadKey is a key that is there and signs nothing.
type deadKey struct{ softKey }

func (deadKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("NTE_BAD_KEYSET")
}

// lasting gives a certificate the rest of its life.
func lasting(d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
}

// tokenWindow gives a certificate a token_not_after extension with this value.
func tokenWindow(value []byte) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 90, 2, 1}, Value: value}}
	}
}

func TestThumbprintIsRFC8705(t *testing.T) {
	b := binding(t, nil)
	sum := sha256.Sum256(b.Certificate.Leaf.Raw)
	require.Equal(t, base64.RawURLEncoding.EncodeToString(sum[:]), b.Thumbprint())
	require.Empty(t, (&mtls.Binding{}).Thumbprint())
}

func TestNewBindingRefusesWhatIsNotOurs(t *testing.T) {
	key := testKey()
	leaf := certificate(t, key.Public(), nil)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	noGUID := certificate(t, key.Public(), func(c *x509.Certificate) { c.Subject.CommonName = "web server" })
	for name, test := range map[string]struct {
		leaf               *x509.Certificate
		key                mtls.Key
		endpoint, clientID string
		culprit            string
	}{
		"no certificate":        {nil, key, testEndpoint, testClientID, "certificate"},
		"no key":                {leaf, nil, testEndpoint, testClientID, "key"},
		"certificate for other": {leaf, softKey{stranger}, testEndpoint, testClientID, "another key"},
		"CN no GUID":            {noGUID, key, testEndpoint, testClientID, "CN"},
		"client id no GUID":     {leaf, key, testEndpoint, "me", "client id"},
		"http endpoint":         {leaf, key, "http://eus.mtlsauth.example/tenant", testClientID, "https"},
		"userinfo":              {leaf, key, "https://user@eus.mtlsauth.example/tenant", testClientID, "userinfo"},
		"query":                 {leaf, key, testEndpoint + "?a=b", testClientID, "query"},
		"fragment":              {leaf, key, testEndpoint + "#f", testClientID, "fragment"},
		"no host":               {leaf, key, "https:///tenant", testClientID, "host"},
		"no URL":                {leaf, key, "https://[", testClientID, "URL"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := mtls.NewBinding(test.leaf, test.key, test.endpoint, test.clientID)
			require.ErrorContains(t, err, test.culprit)
			require.Nil(t, b)
		})
	}
	b, err := mtls.NewBinding(leaf, key, testEndpoint, testClientID)
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthSoftware, b.Strength())
}

// The token window comes as either time type, bare or wrapped; what cannot be read must not shorten or lengthen
// anything.
func TestUsableUntil(t *testing.T) {
	end := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	generalized, err := asn1.MarshalWithParams(end, "generalized")
	require.NoError(t, err)
	utc, err := asn1.MarshalWithParams(end, "utc")
	require.NoError(t, err)
	sequence := func(content []byte) []byte {
		out, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
		require.NoError(t, err)
		return out
	}
	late, err := asn1.MarshalWithParams(end.Add(365*24*time.Hour), "generalized")
	require.NoError(t, err)
	for name, test := range map[string]struct {
		value []byte
		ends  bool
	}{
		"GeneralizedTime":             {generalized, true},
		"UTCTime":                     {utc, true},
		"GeneralizedTime in SEQUENCE": {sequence(generalized), true},
		"UTCTime in SEQUENCE":         {sequence(utc), true},
		"later than NotAfter":         {late, false},
		"malformed":                   {[]byte{0x18, 0x02, 'n', 'o'}, false},
		"truncated":                   {generalized[:5], false},
		"trailing bytes":              {append(append([]byte{}, generalized...), 5, 0), false},
		"empty":                       {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := binding(t, tokenWindow(test.value))
			if test.ends {
				require.Equal(t, end, b.UsableUntil().UTC())
			} else {
				require.Equal(t, b.Certificate.Leaf.NotAfter, b.UsableUntil())
			}
		})
	}
	require.True(t, (&mtls.Binding{}).UsableUntil().IsZero())
}

func TestSoftwareKeys(t *testing.T) {
	key, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthSoftware, key.Strength())
	public, ok := key.Public().(*rsa.PublicKey)
	require.True(t, ok)
	require.Equal(t, 2048, public.N.BitLen())

	other, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	require.False(t, public.Equal(other.Public()), "every binding gets a key of its own")
}

func TestNames(t *testing.T) {
	for strength, name := range map[mtls.BindingStrength]string{0: "none", 1: "software", 2: "TPM", 3: "KeyGuard", 9: "BindingStrength(9)"} {
		require.Equal(t, name, strength.String())
	}
}

func TestMaskKeepsNoIdentifier(t *testing.T) {
	require.Equal(t, "111111…#att=0", eventlog.Mask(testClientID+"#att=0"))
	require.Equal(t, "/subsc…", eventlog.Mask("/subscriptions/secret#fragment"))
	require.Equal(t, "short", eventlog.Mask("short"))
}

// A binding that ends up in somebody's JSON, as a part of an error for example, shows neither key nor certificate.
func TestBindingInJSON(t *testing.T) {
	b := binding(t, nil)
	for _, value := range []any{b, refusal(b, "")} {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		require.Contains(t, string(text), `"host":"eus.mtlsauth.example:443"`)
		require.Less(t, len(text), 300)
		var search secrets.Search
		search.Text(string(text))
		require.Empty(t, search.Found())
	}
}

// What remains of a certificate goes by its own end, though tokens may be had for a shorter time only.
func TestRemaining(t *testing.T) {
	end, err := asn1.MarshalWithParams(time.Now().Add(48*time.Hour).UTC(), "generalized")
	require.NoError(t, err)
	b := binding(t, tokenWindow(end))
	require.InDelta(t, 7*24, b.Remaining().Hours(), 0.1)
	now := clock.NewFake(time.Now())
	got, err := at(now).GetOrMint(t.Context(), (&minter{t: t, again: b}).foreground("a"))
	require.NoError(t, err)
	require.InDelta(t, 7*24, got.Remaining().Hours(), 0.1)
	now.Advance(24 * time.Hour)
	require.InDelta(t, 6*24, got.Remaining().Hours(), 0.1)
	require.Zero(t, new(mtls.Binding).Remaining())
}
