package imdstest_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// A certificate that is no good is refused by the alert that crypto/tls would send, and counts as presented.
func TestCertificatesAreVerified(t *testing.T) {
	another := newServer(t, imdstest.Options{})
	for _, alert := range []uint64{42, 45, 48} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := newServer(t, imdstest.Options{TLSVersion: version, EditCertificate: func(c *x509.Certificate) {
				switch alert {
				case 42:
					c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				case 45:
					c.NotAfter = time.Now().Add(-time.Minute)
				}
			}})
			issuer := s
			if alert == 48 {
				issuer = another
			}
			leaf, err := issuer.IssueCertificate(testKey().Public(), client)
			require.NoError(t, err)
			got, ok := alertOf(handshake(t, s, leaf))
			require.True(t, ok)
			require.Equal(t, alert, got)
			sum := sha256.Sum256(leaf.Raw)
			require.Equal(t, 1, s.Presented(base64.RawURLEncoding.EncodeToString(sum[:])))
		}
	}
}

// handshake connects to the token endpoint with the certificate and returns the error of the handshake or, since a
// refusal in TLS 1.3 comes after it, of the first read.
func handshake(t *testing.T, s *imdstest.Server, leaf *x509.Certificate) error {
	t.Helper()
	config := s.MTLSTransport().TLSClientConfig
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: testKey()}, nil
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.TokenURL(), "https://"), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}

// alertOf returns the number of the TLS alert in an error of crypto/tls.
func alertOf(err error) (uint64, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	return reflect.ValueOf(op.Err).Uint(), true
}

// Every alert arrives with the number that was asked for, in both versions, though crypto/tls would send others.
func TestAlerts(t *testing.T) {
	for _, version := range versions {
		for _, stage := range []imdstest.Stage{imdstest.AtHello, imdstest.AtCertificate} {
			for _, alert := range []uint8{40, 42, 43, 44, 45, 46, 47, 48, 49, 51, 70, 80, 116} {
				t.Run(fmt.Sprintf("%s/%s/%d", tls.VersionName(version), stage, alert), func(t *testing.T) {
					t.Parallel()
					s := newServer(t, imdstest.Options{TLSVersion: version})
					leaf, err := s.IssueCertificate(testKey().Public(), client)
					require.NoError(t, err)
					if stage == imdstest.AtCertificate {
						s.Refuse(thumbprint(leaf), alert)
					} else {
						s.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: stage, Do: imdstest.Alert(alert)})
					}
					err = handshake(t, s, leaf)
					got, ok := alertOf(err)
					require.True(t, ok, "%v", err)
					require.EqualValues(t, alert, got)
				})
			}
		}
	}
}
