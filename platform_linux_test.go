package azmtls_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/stretchr/testify/require"
)

// The defaults of Linux do no harm where there is no TPM, or none for this process: tokens come over a key in memory,
// nothing is written, and what to do about it is said once.
func TestDefaultsWithoutTPM(t *testing.T) {
	if (tpmstore.Keys{}).Reachable() == nil {
		t.Skip("this process may use a TPM")
	}
	home := t.TempDir()
	for _, name := range []string{"STATE_DIRECTORY", "XDG_STATE_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	advice := logged(t, `no TPM key from "/dev/tpmrm0"`)
	begin := time.Now()
	require.Error(t, tpmstore.Keys{}.Reachable())
	require.Less(t, time.Since(begin), 50*time.Millisecond)
	f := newFixture(
		t,
		imdstest.Options{},
		func(o *azmtls.ImdsV2MtlsCredentialOptions) { o.KeyProvider, o.Store = nil, nil },
	)
	_, err := f.token(vault)
	require.NoError(t, err)
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1})
	require.NoError(t, f.cred.Close())
	_, err = f.asks(vault)
	require.NoError(t, err)
	require.Equal(t, 2, f.server.Counts().Issued, "two keys were asked for")
	require.Equal(t, 1, advice(), "it is said once")
	require.NoDirExists(t, filepath.Join(home, ".local"))
	f.noRejections()

	strength, passedOver, err := mtls.Chooser(tpmstore.Keys{}).Choose(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthSoftware, strength)
	require.Len(t, passedOver, 1)
}
