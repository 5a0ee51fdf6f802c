// Package csr builds the certificate request (PKCS#10, RFC 2986) that IMDS v2 takes.
//
// crypto/x509 cannot build it: it has no custom attributes, and it writes the parameters of RSASSA-PSS with the NULLs
// and the trailer field that the live service refuses.
package csr

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	encodingasn1 "encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidDomainComponent = encodingasn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidCommonName      = encodingasn1.ObjectIdentifier{2, 5, 4, 3}
	oidCuID            = encodingasn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 90, 2, 10}
	oidRSASSAPSS       = encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1            = encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256          = encodingasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

const (
	keyBits    = 2048
	saltLength = 32 // as long as the hash
)

// Params is what a request says of its subject.
type Params struct {
	ClientID string // of the identity; becomes the CN
	TenantID string // becomes the DC
	CuID     []byte // compact JSON naming the compute unit
}

// New returns the DER of a request for the key's certificate, signed with RSASSA-PSS, SHA-256 and a salt of 32 bytes.
// The key must be an RSA key of 2048 bits.
func New(key crypto.Signer, p Params) ([]byte, error) {
	public, err := check(key, p)
	if err != nil {
		return nil, fmt.Errorf("building the certificate request: %w", err)
	}
	info, err := requestInfo(public, p)
	if err != nil {
		return nil, fmt.Errorf("building the certificate request: %w", err)
	}
	digest := sha256.Sum256(info)
	signature, err := key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: saltLength, Hash: crypto.SHA256})
	if err != nil {
		return nil, fmt.Errorf("signing the certificate request (RSASSA-PSS, SHA-256): %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info)
		addPSS(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// check refuses what cannot be encoded, and keys that IMDS does not certify.
func check(key crypto.Signer, p Params) (*rsa.PublicKey, error) {
	public, ok := key.Public().(*rsa.PublicKey)
	switch {
	case !ok:
		return nil, fmt.Errorf("the key must be an RSA key of %d bits, not %T", keyBits, key.Public())
	case public.N.BitLen() != keyBits:
		return nil, fmt.Errorf("the key must be an RSA key of %d bits, not %d", keyBits, public.N.BitLen())
	case p.ClientID == "" || strings.ContainsFunc(p.ClientID, notPrintable):
		return nil, errors.New("the client id is empty or no PrintableString")
	case p.TenantID == "" || strings.ContainsFunc(p.TenantID, func(r rune) bool { return r > 0x7f }):
		return nil, errors.New("the tenant id is empty or no IA5String")
	case len(p.CuID) == 0 || !utf8.Valid(p.CuID):
		return nil, errors.New("the compute unit id is empty or not UTF-8")
	}
	return public, nil
}

// notPrintable reports that a PrintableString (X.680, section 41.4) cannot hold the character.
func notPrintable(r rune) bool {
	switch {
	case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return false
	default:
		return !strings.ContainsRune(" '()+,-./:=?", r)
	}
}

// requestInfo returns the part of the request that is signed (CertificationRequestInfo, RFC 2986, section 4.1).
func requestInfo(public *rsa.PublicKey, p Params) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0) // version
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addRDN(b, oidDomainComponent, asn1.IA5String, p.TenantID)
			addRDN(b, oidCommonName, asn1.PrintableString, p.ClientID)
		})
		b.AddBytes(spki)
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidCuID)
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes(p.CuID) })
				})
			})
		})
	})
	return b.Bytes()
}

func addRDN(b *cryptobyte.Builder, attribute encodingasn1.ObjectIdentifier, tag asn1.Tag, value string) {
	b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(attribute)
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
		})
	})
}

// addPSS adds the AlgorithmIdentifier of RSASSA-PSS (RFC 4055, section 3.1) in the one form that the live service
// accepts: no NULL after the hash OIDs, and the trailer field, whose value is the default, left out.
func addPSS(b *cryptobyte.Builder) {
	explicit := func(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }
	sha256Only := func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidSHA256) })
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidRSASSAPSS)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(0), sha256Only)
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidMGF1)
					sha256Only(b)
				})
			})
			b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(saltLength) })
		})
	})
}
