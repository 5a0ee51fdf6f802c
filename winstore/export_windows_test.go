package winstore

import (
	"os"
	"strconv"
	"testing"

	"github.com/azmtls/azmtls/internal/secrets"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// For the tests in package winstore_test, which use the credential on top of this package.

// Hunt searches the log that all tests of this folder write.
var Hunt secrets.Search

// Container names where a key lives.
type Container = container

// Nowhere is a container that is not there.
var Nowhere = Container{
	provider:     capiProvider,
	name:         "azmtls-test-nowhere",
	providerType: windows.PROV_RSA_AES,
	keySpec:      1,
}

// PersistedKey makes a key that outlives its process until the test ends.
func PersistedKey(t testing.TB) (mtls.Key, Container) {
	k := persistedKey(t)
	return k, k.container
}

// UnusableKey makes one that opens and does not sign: the oldest provider of CryptoAPI knows no SHA-256.
func UnusableKey(t testing.TB) (mtls.Key, Container) {
	const base, rsaFull = "Microsoft Base Cryptographic Provider v1.0", 1
	name := "azmtls-test-" + uuid.NewString()
	native, err := generateCAPIKey(name, base, rsaFull, 1024)
	require.NoError(t, err)
	t.Cleanup(func() {
		native.close()
		deleteCAPIKey(name, base, rsaFull)
	})
	public, err := native.publicKey()
	require.NoError(t, err)
	_, err = newKey(native, mtls.StrengthSoftware, container{})
	require.Error(t, err, "it must not be able to sign")
	return &key{public: public}, Container{provider: base, name: name, providerType: rsaFull, keySpec: 1}
}

// StartPlanting has another process store the certificate in a file.
func StartPlanting(t testing.TB, friendlyName, file string, c Container) *Child {
	return StartChild(
		t,
		"plant",
		friendlyName,
		file,
		c.provider,
		c.name,
		strconv.Itoa(int(c.providerType)),
		strconv.Itoa(int(c.keySpec)),
	)
}

// plantFile is that process.
func plantFile(arguments []string) error {
	der, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	providerType, err := strconv.Atoi(arguments[4])
	if err != nil {
		return err
	}
	keySpec, err := strconv.Atoi(arguments[5])
	if err != nil {
		return err
	}
	return plant(
		arguments[0],
		der,
		container{provider: arguments[2], name: arguments[3], providerType: uint32(providerType), keySpec: uint32(keySpec)},
	)
}

// Unplant removes a certificate.
func Unplant(der []byte) error { return unplant(der) }

// ThumbprintOf returns the x5t#S256 of a certificate.
func ThumbprintOf(der []byte) string { return thumbprint(der) }

// Stored returns the thumbprints of what lies under an alias.
func Stored(alias string) ([]string, error) { return storedUnder(alias) }

// Count returns how often a certificate is stored.
func Count(t testing.TB, thumbprint string) int { return count(t, thumbprint) }

// UnderWine tells the one Windows from the other.
func UnderWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}
