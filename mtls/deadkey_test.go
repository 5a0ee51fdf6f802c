package mtls_test

import (
	"crypto"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// dyingKey is a key that signs no more once it is dead.
type dyingKey struct {
	mtls.Key
	dead *atomic.Bool
}

func (k dyingKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.dead.Load() {
		return nil, errors.New("NTE_BAD_KEYSET")
	}
	return k.Key.Sign(random, digest, opts)
}

// A key that is found dead after a connection was lost says that the binding must go. It does not say that the request
// was not processed: one that is not repeatable stays with its caller.
func TestKeyFoundDeadAfterALoss(t *testing.T) {
	for method, repeatable := range map[string]bool{http.MethodPost: false, http.MethodPut: true} {
		t.Run(method, func(t *testing.T) {
			dead := &atomic.Bool{}
			server := imdstest.NewServer(&imdstest.Options{})
			t.Cleanup(server.Close)
			leaf, err := server.IssueCertificate(testKey().Public(), testClientID)
			require.NoError(t, err)
			b, err := mtls.NewBinding(leaf, dyingKey{testKey(), dead}, server.TokenURL()+"/tenant", testClientID)
			require.NoError(t, err)
			server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtAnswer, Do: imdstest.Reset{}})
			body := &onRead{Reader: strings.NewReader("payload"), do: func() { dead.Store(true) }} // the handshake is over
			req, err := http.NewRequestWithContext(t.Context(), method, server.ResourceURL(), body)
			require.NoError(t, err)
			_, err = mtls.NewTransport(server.MTLSTransport(), b).Do(req)
			var refusal *mtls.Refusal
			require.ErrorAs(t, err, &refusal)
			require.ErrorContains(t, refusal, "NTE_BAD_KEYSET")
			require.Equal(t, !repeatable, refusal.Final)
			require.Equal(t, 1, server.Counts().Resource)
		})
	}
}

// onRead is a body that does something when it is read.
type onRead struct {
	io.Reader
	do func()
}

func (r *onRead) Read(p []byte) (int, error) { r.do(); return r.Reader.Read(p) }
