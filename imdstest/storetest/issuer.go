package storetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
)

const (
	clientID = "d3adb33f-c0de-4ad0-8c0d-3adb33fc0de0"
	endpoint = "https://eastus.mtlsauth.microsoft.com/72f988bf-86f1-41af-91ab-2d7cd011db47"
)

// issuer issues certificates as IMDS does.
type issuer struct{ key *ecdsa.PrivateKey }

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err, "making an issuer")
	return &issuer{key}
}

func (i *issuer) binding(key mtls.Key, age, left time.Duration) (*mtls.Binding, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "storetest"}, SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: clientID},
		NotBefore:    now.Add(-age),
		NotAfter:     now.Add(left),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, parent, key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return mtls.NewBinding(leaf, key, endpoint, clientID)
}
