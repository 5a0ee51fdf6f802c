package winstore_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/winstore"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

const tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"

// machine is a VM: an IMDS with a user-assigned identity, and processes that get tokens for it with the defaults of
// Windows.
type machine struct {
	*testing.T
	server          *imdstest.Server
	identity, alias string
	authority       string // file
}

func newMachine(t *testing.T) *machine {
	server := imdstest.NewServer(&imdstest.Options{TenantID: tenant})
	t.Cleanup(server.Close)
	m := &machine{T: t, server: server, identity: uuid.NewString(), authority: filepath.Join(t.TempDir(), "authority.pem")}
	m.alias = m.identity + "#att=0"
	require.NoError(
		t,
		os.WriteFile(m.authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Authority().Raw}), 0o600),
	)
	t.Cleanup(func() { require.NoError(t, winstore.Store{}.DeleteAll(context.Background(), m.alias)) })
	return m
}

// token has another process get a token.
func (m *machine) token() {
	m.awaitToken(m.startToken())
	require.Empty(m, m.server.Rejections())
}

// startToken starts a process that gets a token.
func (m *machine) startToken() *winstore.Child {
	m.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", m.server.IMDSURL())
	return winstore.StartChild(m, "token", m.identity, m.authority)
}

// awaitToken waits until it has.
func (m *machine) awaitToken(c *winstore.Child) {
	require.Equal(m, "got a token", c.Line())
	c.Wait()
}

// token is that process.
func token(arguments []string) error {
	authority, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return errors.New("no authority")
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		ID:            azidentity.ClientID(arguments[0]),
		MTLSTransport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	})
	if err != nil {
		return err
	}
	defer cred.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}); err != nil {
		return err
	}
	fmt.Println("got a token")
	return nil
}

// stored returns the thumbprints under the identity's alias.
func (m *machine) stored() []string {
	found, err := winstore.Stored(m.alias)
	require.NoError(m, err)
	return found
}

// plant has another process store a certificate for the identity, and returns its thumbprint.
func (m *machine) plant(friendlyName string, public any, c winstore.Container) string {
	leaf, err := m.server.IssueCertificate(public, m.identity)
	require.NoError(m, err)
	file := filepath.Join(m.TempDir(), "certificate.der")
	require.NoError(m, os.WriteFile(file, leaf.Raw, 0o600))
	winstore.StartPlanting(m, friendlyName, file, c).Wait()
	m.Cleanup(func() { require.NoError(m, winstore.Unplant(leaf.Raw)) })
	thumbprint := winstore.ThumbprintOf(leaf.Raw)
	require.Equal(m, 1, winstore.Count(m, thumbprint), "the other process stored it")
	return thumbprint
}

// friendlyName is what MSAL.NET calls the identity's certificate.
func (m *machine) friendlyName() string {
	return "MSAL|alias=" + m.alias + "|ep=" + m.server.TokenURL() + "/" + tenant
}

// A binding outlives its process in CurrentUser\My. Where its key does not, as under Wine, the next process finds a
// certificate that looks perfect and cannot sign: it mints one more, and the dead one is gone.
func TestSecondProcess(t *testing.T) {
	m := newMachine(t)
	m.token()
	first := m.stored()
	require.Len(t, first, 1, "the first process stored its binding")
	require.Equal(t, 1, m.server.Counts().Issued)

	m.token()
	second := m.stored()
	require.Len(t, second, 1)
	if !winstore.UnderWine() {
		require.Equal(t, first, second)
		require.Equal(t, 1, m.server.Counts().Issued)
		return
	}
	require.NotEqual(t, first, second, "the dead entry is gone")
	require.Equal(t, 2, m.server.Counts().Issued)
	require.Zero(t, winstore.Count(t, first[0]))
	require.Equal(t, 1, m.server.Presented(first[0]), "it was presented by the first process only")
}

// Where the default store is switched off, for MSAL and for us, nothing is taken from it and nothing put there.
func TestStoreIsSwitchedOff(t *testing.T) {
	m := newMachine(t)
	key, c := winstore.PersistedKey(t)
	planted := m.plant(m.friendlyName(), key.Public(), c)
	t.Setenv("MSAL_MI_DISABLE_PERSISTENT_CERT_CACHE", "True")
	m.token()
	require.Equal(t, 1, m.server.Counts().Issued)
	require.Equal(t, []string{planted}, m.stored())
}

// A binding that another process stored, with a key that lives, is used as it is: no mint. That its key is one of the
// older CryptoAPI costs no more than TLS 1.3.
func TestSecondProcessUsesTheBindingOfTheFirst(t *testing.T) {
	m := newMachine(t)
	key, c := winstore.PersistedKey(t)
	planted := m.plant(m.friendlyName(), key.Public(), c)
	m.token()
	require.Zero(t, m.server.Counts().Issued)
	require.Equal(t, 1, m.server.Counts().Metadata, "whether it is for this machine")
	require.Equal(t, 1, m.server.Presented(planted))
	require.Equal(t, []string{planted}, m.stored())
}

// What this project is for: a certificate that every process picked up, and that failed every handshake until a person
// deleted it, is gone after the first GetToken, for one mint. Nothing else in the store is touched.
func TestStickyBadCertificate(t *testing.T) {
	working, container := winstore.PersistedKey(t)
	unusable, unusableContainer := winstore.UnusableKey(t)
	other, _ := winstore.PersistedKey(t)
	for name, test := range map[string]struct {
		public    any
		container winstore.Container
		refused   bool
	}{
		"no key":               {other.Public(), winstore.Container{}, false},
		"key gone":             {other.Public(), winstore.Nowhere, false},
		"key of another":       {other.Public(), container, false},
		"key that cannot sign": {unusable.Public(), unusableContainer, false},
		"refused certificate":  {working.Public(), container, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			bad := m.plant(m.friendlyName(), test.public, test.container)
			unrelated := []string{
				m.plant("MSAL|alias="+uuid.NewString()+"#att=0|ep="+m.server.TokenURL(), test.public, test.container),
				m.plant("MSAL|alias="+m.identity+"#att=1|ep="+m.server.TokenURL(), test.public, test.container),
				m.plant("a friend's certificate", test.public, test.container),
				m.plant("", test.public, test.container),
			}
			if test.refused {
				m.server.Refuse(bad, 48)
			}
			m.token()
			require.Equal(t, 1, m.server.Counts().Issued, "one mint")
			require.Zero(t, winstore.Count(t, bad), "it is gone")
			require.Len(t, m.stored(), 1, "the fresh one took its place")
			for _, u := range unrelated {
				require.Equal(t, 1, winstore.Count(t, u))
			}
		})
	}
}
