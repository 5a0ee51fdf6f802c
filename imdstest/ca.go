package imdstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// issuerName is the CN of the authority that signs the certificates of managed identities.
const issuerName = "managedidentitysnissuer.login.microsoft.com"

// oidTokenNotAfter is the extension that ends the token window of a certificate.
var oidTokenNotAfter = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 90, 2, 1}

// oidDomainComponent is the attribute that holds the tenant in a certificate's subject.
var oidDomainComponent = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}

// authority signs the certificates of the servers and of the identities, and, with a key of its own, tokens.
type authority struct {
	tokenKey *ecdsa.PrivateKey
	server   tls.Certificate

	mu      sync.RWMutex
	issuers []issuer // the last one signs, all are trusted
}

type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority returns one whose server certificate has these names besides. It panics when it runs out of randomness,
// the only thing that can go wrong.
func newAuthority(names ...string) *authority {
	a := &authority{tokenKey: newKey(), issuers: []issuer{newIssuer()}}
	serverKey := newKey()
	leaf := must(a.issuers[0].sign(&x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     append([]string{"localhost"}, names...),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(365 * 24 * time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, serverKey.Public()))
	a.server = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: serverKey, Leaf: leaf}
	return a
}

func newIssuer() issuer {
	i := issuer{key: newKey()}
	i.certificate = &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: issuerName},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	i.certificate = must(i.sign(i.certificate, i.key.Public()))
	return i
}

func (i issuer) sign(template *x509.Certificate, public crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, i.certificate, public, i.key)
	if err != nil {
		return nil, fmt.Errorf("imdstest: signing a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// current returns the issuer that signs now.
func (a *authority) current() issuer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.issuers[len(a.issuers)-1]
}

func (a *authority) rotate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issuers = append(a.issuers, newIssuer())
}

func (a *authority) pool() *x509.CertPool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	pool := x509.NewCertPool()
	for _, i := range a.issuers {
		pool.AddCert(i.certificate)
	}
	return pool
}

// issue signs the certificate of an identity.
func (a *authority) issue(o Options, public crypto.PublicKey, clientID string) (*x509.Certificate, error) {
	now := o.Time()
	template := &x509.Certificate{
		SerialNumber: newSerial(),
		Subject: pkix.Name{
			CommonName: clientID,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidDomainComponent, Value: o.TenantID}},
		},
		NotBefore:   now.Add(-time.Hour).Add(min(0, o.CertificateLifetime)),
		NotAfter:    now.Add(o.CertificateLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if o.TokenNotAfter != 0 {
		end, err := asn1.MarshalWithParams(now.Add(o.TokenNotAfter).UTC().Truncate(time.Second), "generalized")
		if err != nil {
			return nil, fmt.Errorf("imdstest: encoding the token window: %w", err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oidTokenNotAfter, Value: end})
	}
	if o.EditCertificate != nil {
		o.EditCertificate(template)
	}
	return a.current().sign(template, public)
}

func newKey() *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func newSerial() *big.Int {
	return must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("imdstest: %v", err))
	}
	return v
}

// thumbprint returns the x5t#S256 of a certificate (RFC 8705, section 3.1).
func thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
