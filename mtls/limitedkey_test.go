package mtls_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"io"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// limitedKey is a key in hardware that knows PKCS #1 v1.5 only.
type limitedKey struct{ mtls.Key }

func (limitedKey) SupportedSignatureAlgorithms() []tls.SignatureScheme {
	return []tls.SignatureScheme{tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512}
}

func (k limitedKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, errors.New("this hardware signs no RSASSA-PSS")
	}
	return k.Key.Sign(random, digest, opts)
}

// A key that cannot sign RSASSA-PSS works, over TLS 1.2: its certificate must not be taken for bad and replaced again
// and again.
func TestKeyWithoutPSS(t *testing.T) {
	for name, version := range map[string]uint16{"both versions": 0, "TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			server := imdstest.NewServer(&imdstest.Options{TLSVersion: version})
			t.Cleanup(server.Close)
			leaf, err := server.IssueCertificate(testKey().Public(), testClientID)
			require.NoError(t, err)
			b, err := mtls.NewBinding(leaf, limitedKey{testKey()}, server.TokenURL()+"/tenant", testClientID)
			require.NoError(t, err)
			err = post(t, mtls.NewTransport(server.MTLSTransport(), b), b.Endpoint)
			if version != tls.VersionTLS13 {
				require.NoError(t, err)
				return
			}
			var refusal *mtls.Refusal
			require.Error(t, err)
			require.False(t, errors.As(err, &refusal), "that there is no common version is not the certificate's fault: %v", err)
		})
	}
}
