package imdstest

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	encodingasn1 "encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// pssAlgorithm is the AlgorithmIdentifier of RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes, in the
// one encoding that the live service takes: without NULL after the hash OIDs, without trailerField.
var pssAlgorithm = []byte{
	0x30, 0x3d,
	0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, // id-RSASSA-PSS
	0x30, 0x30,
	0xa0, 0x0d, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, // [0] SHA-256
	0xa1, 0x1a, 0x30, 0x18, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, // [1] MGF1
	0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, // with SHA-256
	0xa2, 0x03, 0x02, 0x01, 0x20, // [2] 32
}

var (
	oidCommonName = encodingasn1.ObjectIdentifier{2, 5, 4, 3}
	oidCuID       = encodingasn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 90, 2, 10}
)

// checkCSR checks a certificate request to the byte and returns its key.
func checkCSR(der []byte, tenantID, clientID, cuID string) (*rsa.PublicKey, error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errors.New("it is not a PKCS#10 request")
	}
	public, ok := request.PublicKey.(*rsa.PublicKey)
	if !ok || public.N.BitLen() != 2048 {
		return nil, errors.New("its key is not an RSA key of 2048 bits")
	}
	input := cryptobyte.String(der)
	var outer, info, algorithm cryptobyte.String
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !input.Empty() ||
		!outer.ReadASN1(&info, asn1.SEQUENCE) || !outer.ReadASN1Element(&algorithm, asn1.SEQUENCE) {
		return nil, errors.New("it is not one SEQUENCE of info, algorithm and signature")
	}
	if !bytes.Equal(algorithm, pssAlgorithm) {
		return nil, errors.New("its signature algorithm is not RSASSA-PSS in the accepted encoding")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, errors.New("its signature does not verify")
	}
	var version int64
	var subject, spki, attributes cryptobyte.String
	if !info.ReadASN1Integer(&version) || version != 0 ||
		!info.ReadASN1(&subject, asn1.SEQUENCE) || !info.ReadASN1(&spki, asn1.SEQUENCE) ||
		!info.ReadASN1(&attributes, asn1.Tag(0).ContextSpecific().Constructed()) || !info.Empty() {
		return nil, errors.New("its info is not version 0, subject, key and attributes")
	}
	if err := readRDN(&subject, oidDomainComponent, asn1.IA5String, tenantID); err != nil {
		return nil, fmt.Errorf("the first part of its subject is not the tenant's DC: %w", err)
	}
	if err := readRDN(&subject, oidCommonName, asn1.PrintableString, clientID); err != nil {
		return nil, fmt.Errorf("the second part of its subject is not the client's CN: %w", err)
	}
	if !subject.Empty() {
		return nil, errors.New("its subject has more than DC and CN")
	}
	return public, checkCuID(attributes, cuID)
}

func readRDN(subject *cryptobyte.String, attribute encodingasn1.ObjectIdentifier, tag asn1.Tag, want string) error {
	var set, pair, value cryptobyte.String
	var oid encodingasn1.ObjectIdentifier
	switch {
	case !subject.ReadASN1(&set, asn1.SET) || !set.ReadASN1(&pair, asn1.SEQUENCE) || !set.Empty() ||
		!pair.ReadASN1ObjectIdentifier(&oid):
		return errors.New("malformed")
	case !oid.Equal(attribute):
		return fmt.Errorf("attribute %s", oid)
	case !pair.ReadASN1(&value, tag) || !pair.Empty():
		return errors.New("wrong string type")
	case string(value) != want:
		return errors.New("wrong value")
	}
	return nil
}

func checkCuID(attributes cryptobyte.String, want string) error {
	var attribute, set, value cryptobyte.String
	var oid encodingasn1.ObjectIdentifier
	if !attributes.ReadASN1(&attribute, asn1.SEQUENCE) || !attributes.Empty() ||
		!attribute.ReadASN1ObjectIdentifier(&oid) ||
		!oid.Equal(oidCuID) {
		return fmt.Errorf("its one attribute is not %s", oidCuID)
	}
	if !attribute.ReadASN1(&set, asn1.SET) || !attribute.Empty() || !set.ReadASN1(&value, asn1.UTF8String) ||
		!set.Empty() {
		return errors.New("its attribute is not a SET of one UTF8String")
	}
	if string(value) != want {
		return errors.New("its attribute does not hold the compact cuId")
	}
	return nil
}
