package tpmstore_test

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
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/swtpm"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const alias = "system_assigned_managed_identity#att=0"

// machine is a VM with a TPM: an IMDS, and processes that get tokens.
type machine struct {
	*testing.T
	server    *imdstest.Server
	tpm       *swtpm.TPM
	folder    string
	authority string // file
}

func newMachine(t *testing.T, options imdstest.Options) *machine {
	server := imdstest.NewServer(&options)
	t.Cleanup(server.Close)
	m := &machine{t, server, tpmstore.StartTPM(t), t.TempDir(), filepath.Join(t.TempDir(), "authority.pem")}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Authority().Raw})
	require.NoError(t, os.WriteFile(m.authority, certificate, 0o600))
	return m
}

// options are those of a process of its own.
func (m *machine) options() *azmtls.ImdsV2MtlsCredentialOptions {
	client := m.server.ClientOptions()
	client.Retry = policy.RetryOptions{RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Millisecond}
	return &azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions:      client,
		MTLSTransport:      m.server.MTLSTransport(),
		KeyProvider:        tpmstore.Keys{Device: m.tpm.Socket, Folder: m.folder},
		Store:              tpmstore.Store{Folder: m.folder},
		MinBindingStrength: mtls.StrengthTPM,
		Cache:              &mtls.Cache{},
	}
}

func (m *machine) credential() *azmtls.ImdsV2MtlsCredential {
	cred, err := azmtls.NewImdsV2MtlsCredential(m.options())
	require.NoError(m, err)
	m.Cleanup(func() { require.NoError(m, cred.Close()) })
	return cred
}

// getToken gets a token that no cache gives out.
func getToken(ctx context.Context, cred *azmtls.ImdsV2MtlsCredential) error {
	_, err := cred.GetToken(ctx, policy.TokenRequestOptions{
		Scopes: []string{"https://vault.azure.net/.default"}, Claims: `{"id_token":{}}`,
	})
	return err
}

// anotherProcess has one get a token.
func (m *machine) anotherProcess() {
	m.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", m.server.IMDSURL())
	require.Equal(m, "got a token\n", tpmstore.RunChild(m, "token", m.tpm.Socket, m.folder, m.authority))
	require.Empty(m, m.server.Rejections())
}

// token is that process.
func token(arguments []string) error {
	authority, err := os.ReadFile(arguments[2])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return errors.New("no authority")
	}
	cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
		KeyProvider:   tpmstore.Keys{Device: arguments[0], Folder: arguments[1]},
		Store:         tpmstore.Store{Folder: arguments[1]},
		MTLSTransport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	})
	if err != nil {
		return err
	}
	defer cred.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := getToken(ctx, cred); err != nil {
		return err
	}
	fmt.Println("got a token")
	return nil
}

// stored returns the thumbprint of the binding in the folder.
func (m *machine) stored() string {
	_, thumbprint := tpmstore.Stored(m, m.folder, alias)
	return thumbprint
}

// A binding outlives its process and the machine's reboot, without a mint. When the TPM was wiped the next process
// heals: the dead one is gone from the folder, for one mint.
func TestSecondProcess(t *testing.T) {
	m := newMachine(t, imdstest.Options{})
	m.anotherProcess()
	first := m.stored()
	require.NotEmpty(t, first)
	require.Equal(t, 1, m.server.Counts().Issued)

	m.anotherProcess()
	m.tpm.Stop()
	require.NoError(t, m.tpm.Start())
	m.anotherProcess()
	require.Equal(t, first, m.stored())
	require.Equal(t, 1, m.server.Counts().Issued)
	require.Equal(t, 3, m.server.Presented(first))

	require.NoError(t, m.tpm.Wipe())
	m.anotherProcess()
	require.Equal(t, 2, m.server.Counts().Issued, "one mint")
	second := m.stored()
	require.NotEqual(t, first, second)
	require.Equal(t, 3, m.server.Presented(first), "the dead one was not tried")
	m.anotherProcess()
	require.Equal(t, 2, m.server.Counts().Issued)
}

// A process whose TPM is wiped under it heals within the call. One whose TPM is gone for a while loses nothing.
func TestTPMFailsUnderAProcess(t *testing.T) {
	for name, options := range map[string]imdstest.Options{
		"TLS 1.2": {TLSVersion: tls.VersionTLS12}, "TLS 1.3": {TLSVersion: tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, options)
			cred := m.credential()
			require.NoError(t, getToken(t.Context(), cred))
			first := m.stored()

			require.NoError(t, cred.Close()) // idle connections
			m.tpm.Stop()
			require.ErrorIs(t, getToken(t.Context(), cred), mtls.ErrKeyNotNow)
			require.Equal(t, first, m.stored())
			require.NoError(t, m.tpm.Start())
			require.NoError(t, getToken(t.Context(), cred))
			require.Equal(t, 1, m.server.Counts().Issued)

			require.NoError(t, cred.Close())
			require.NoError(t, m.tpm.Wipe())
			require.NoError(t, getToken(t.Context(), cred))
			require.Equal(t, 2, m.server.Counts().Issued)
			require.NotEqual(t, first, m.stored())
			require.Empty(t, m.server.Rejections())
		})
	}
}

// Connections that are made at once take turns at the TPM.
func TestConcurrentHandshakes(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			m := newMachine(t, imdstest.Options{TLSVersion: version, ResourceClientAuth: new(tls.RequireAnyClientCert)})
			require.NoError(t, getToken(t.Context(), m.credential()))
			b, err := tpmstore.Store{Folder: m.folder}.Load(t.Context(), alias)
			require.NoError(t, err)
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					transport := &http.Transport{TLSClientConfig: &tls.Config{
						RootCAs: m.server.CertPool(), Certificates: []tls.Certificate{b.Certificate},
					}}
					defer transport.CloseIdleConnections()
					resp, err := (&http.Client{Transport: transport}).Get(m.server.ResourceURL())
					if assert.NoError(t, err) {
						assert.NoError(t, resp.Body.Close())
					}
				})
			}
			all.Wait()
			require.Equal(t, 51, m.server.Presented(b.Thumbprint()))
		})
	}
}

// A folder that cannot be used costs an event, and no token. The TPM's key serves all the same.
func TestBadFolderCostsNoToken(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, folder string){
		"readable by all": func(t *testing.T, folder string) { require.NoError(t, os.Chmod(folder, 0o755)) },
		"a symbolic link": func(t *testing.T, folder string) {
			require.NoError(t, os.Rename(folder, folder+".moved"))
			require.NoError(t, os.Symlink(folder+".moved", folder))
		},
		"a file": func(t *testing.T, folder string) {
			require.NoError(t, os.RemoveAll(folder))
			require.NoError(t, os.WriteFile(folder, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, imdstest.Options{})
			require.NoError(t, os.Mkdir(filepath.Join(m.folder, "azmtls"), 0o700))
			spoil(t, filepath.Join(m.folder, "azmtls"))
			loading := tpmstore.Logged(t, "no binding of system…#att=0 taken from the store: tpmstore: ")
			require.NoError(t, getToken(t.Context(), m.credential()))
			require.Len(t, loading(), 1)
		})
	}
}

// Who demands a key in the TPM and has none is told why, before anything is sent.
func TestTPMIsDemanded(t *testing.T) {
	m := newMachine(t, imdstest.Options{})
	options := m.options()
	options.KeyProvider = tpmstore.Keys{Device: "/dev/nonexistent", Folder: m.folder}
	cred, err := azmtls.NewImdsV2MtlsCredential(options)
	require.NoError(t, err)
	defer cred.Close()
	err = getToken(t.Context(), cred)
	require.ErrorContains(
		t,
		err,
		`strength software where MinBindingStrength demands TPM (no TPM key from "/dev/nonexistent"`,
	)
	require.ErrorContains(t, err, "--device /dev/nonexistent")
	require.Zero(t, m.server.Counts().Metadata)
}
