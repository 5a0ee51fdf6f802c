package tpmstore

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"
)

const (
	day      = 24 * time.Hour
	clientID = "d3adb33f-c0de-4ad0-8c0d-3adb33fc0de0"
	endpoint = "https://eastus.mtlsauth.microsoft.com/72f988bf-86f1-41af-91ab-2d7cd011db47"
	alias    = "system_assigned_managed_identity#att=0"
)

// startTPM runs a TPM until the test ends. Where there is no swtpm the test is skipped, but not in CI.
func startTPM(t testing.TB) *swtpm.TPM {
	if err := swtpm.Available(); err != nil {
		if os.Getenv("AZMTLS_REAL_PARTS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "tpm") // t.TempDir's path is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	tpm, err := swtpm.Start(dir)
	require.NoError(t, err)
	t.Cleanup(tpm.Stop)
	return tpm
}

// unloadable returns a key as a TPM makes it, but of none: for tests that need no signature.
var unloadable = sync.OnceValue(func() *key {
	if text := os.Getenv(keyVariable); text != "" { // of the process that started this one
		w, err := parseWrapped([]byte(text))
		if err != nil {
			panic(err)
		}
		return &key{newDevice("/nonexistent"), w}
	}
	software, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		panic(err)
	}
	template := keyTemplate()
	public, err := template.Contents()
	if err != nil {
		panic(err)
	}
	area := *public
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: software.N.Bytes()})
	w := wrapped{
		parent: tpm2.TPMRHOwner, parentName: []byte("\x00\x0bparent"), storageRoot: []byte("\x00\x0bparent"),
		public: tpm2.Marshal(area), private: []byte("wrapped"), key: &software.PublicKey,
	}
	return &key{newDevice("/nonexistent"), w}
})

// authority issues certificates.
type authority struct{ key *ecdsa.PrivateKey }

func newAuthority(t testing.TB) authority {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return authority{k}
}

func (a authority) binding(k mtls.Key, notBefore, notAfter time.Time) (*mtls.Binding, error) {
	leaf, err := a.issue(k.Public(), notBefore, notAfter)
	if err != nil {
		return nil, err
	}
	return mtls.NewBinding(leaf, k, endpoint, clientID)
}

func (a authority) issue(public crypto.PublicKey, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: clientID}, NotBefore: notBefore, NotAfter: notAfter,
	}, parent, public, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// shelf is a store whose keys count as good, unless a test says otherwise.
type shelf struct {
	*testing.T
	files
	authority authority
	dir       string // our folder
	proof     error
}

func newShelf(t *testing.T) *shelf {
	base := t.TempDir()
	s := &shelf{T: t, authority: newAuthority(t), dir: filepath.Join(base, folderName)}
	s.files = files{base, time.Now, func(*key, context.Context) error { return s.proof }}
	return s
}

// inMemory puts the folder where a sync takes no time, if the machine has such a place: for tests that need thousands.
func (s *shelf) inMemory() {
	if base, err := os.MkdirTemp("/dev/shm", "azmtls"); err == nil {
		s.Cleanup(func() { _ = os.RemoveAll(base) })
		s.folder, s.dir = base, filepath.Join(base, folderName)
	}
}

// binding returns a binding that began so long ago and ends in so long.
func (s *shelf) binding(age, left time.Duration) *mtls.Binding {
	now := time.Now()
	b, err := s.authority.binding(unloadable(), now.Add(-age), now.Add(left))
	require.NoError(s, err)
	return b
}

// saved saves a fresh binding and returns its thumbprint and file.
func (s *shelf) saved() (thumbprint, file string) {
	b := s.binding(time.Hour, 7*day)
	require.NoError(s, s.save(s.Context(), alias, b))
	return b.Thumbprint(), filepath.Join(s.dir, fileName(alias))
}

// loaded returns the thumbprint of the binding that the store gives, empty if it gives none.
func (s *shelf) loaded() string {
	b, err := s.load(s.Context(), alias)
	if err != nil {
		require.ErrorIs(s, err, mtls.ErrNotFound)
		return ""
	}
	return b.Thumbprint()
}

// logged returns the lines of the log that hold a text, until the test ends.
func logged(t testing.TB, text string) func() []string {
	var mu sync.Mutex
	var lines []string
	Hunt.Listen(t, func(_ log.Event, line string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return lines
	}
}
