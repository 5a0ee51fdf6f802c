package tpmstore

import (
	"bytes"
	"crypto/rsa"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	encodingasn1 "encoding/asn1"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// wrapped is a key as the TPM gave it out: no other TPM can use it, and this one only below the same parent.
type wrapped struct {
	parent      tpm2.TPMHandle // the hierarchy of the TPM, or a handle at which a parent is kept
	parentName  []byte         // of the parent
	storageRoot []byte         // the Name of the key that the TCG's template made then; nil if it made none
	public      []byte         // TPMT_PUBLIC
	private     []byte         // the content of a TPM2B_PRIVATE
	key         *rsa.PublicKey
}

// In a file a key is "TSS2 PRIVATE KEY", which OpenSSL's tpm2 provider and others read. Lines before it, which they
// ignore, say what tells a cleared TPM from a damaged file.
//
// https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html
const (
	pemType         = "TSS2 PRIVATE KEY"
	parentNameLine  = "Parent-Name: "
	storageRootLine = "Storage-Root-Name: "
)

var oidLoadableKey = encodingasn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// optional returns the tag of a field of that draft's TPMKey that need not be there.
func optional(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }

const emptyAuthField, lastOptionalField = 0, 5

// encode returns the key in the form of a file.
func (w wrapped) encode() []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s%x\n", parentNameLine, w.parentName)
	if w.storageRoot != nil {
		fmt.Fprintf(&text, "%s%x\n", storageRootLine, w.storageRoot)
	}
	var der cryptobyte.Builder
	der.AddASN1(asn1.SEQUENCE, func(key *cryptobyte.Builder) {
		key.AddASN1ObjectIdentifier(oidLoadableKey)
		key.AddASN1(optional(emptyAuthField), func(field *cryptobyte.Builder) { field.AddASN1Boolean(true) })
		key.AddASN1Uint64(uint64(w.parent))
		for _, content := range [][]byte{w.public, w.private} {
			key.AddASN1(asn1.OCTET_STRING, func(sized *cryptobyte.Builder) {
				sized.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(content) })
			})
		}
	})
	block, _ := der.Bytes()
	_ = pem.Encode(&text, &pem.Block{Type: pemType, Bytes: block})
	return text.Bytes()
}

// parseWrapped reads a key in the form of a file. What else is in the file is ignored, as in any PEM file.
func parseWrapped(text []byte) (w wrapped, err error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return w, errors.New(`there is no "TSS2 PRIVATE KEY" in PEM`)
	}
	if err := w.decode(block.Bytes); err != nil {
		return wrapped{}, err
	}
	if w.key, err = rsaKey(w.public); err != nil {
		return wrapped{}, err
	}
	w.parentName, w.storageRoot = name(text, parentNameLine), name(text, storageRootLine)
	return w, nil
}

// decode reads TPMKey of that draft. tpm2-openssl writes TRUE as 1, which is no DER.
func (w *wrapped) decode(der cryptobyte.String) error {
	var key, emptyAuth, public, private cryptobyte.String
	var oid encodingasn1.ObjectIdentifier
	var present bool
	var parent uint32
	malformed := errors.New("the key is malformed")
	if !der.ReadASN1(&key, asn1.SEQUENCE) || !der.Empty() || !key.ReadASN1ObjectIdentifier(&oid) ||
		!oid.Equal(oidLoadableKey) || !key.ReadOptionalASN1(&emptyAuth, &present, optional(emptyAuthField)) {
		return malformed
	}
	for n := uint8(emptyAuthField + 1); n <= lastOptionalField; n++ {
		if !key.SkipOptionalASN1(optional(n)) {
			return malformed
		}
	}
	if !key.ReadASN1Integer(&parent) || !key.ReadASN1(&public, asn1.OCTET_STRING) ||
		!key.ReadASN1(&private, asn1.OCTET_STRING) || !key.Empty() {
		return malformed
	}
	if !present || len(emptyAuth) != 3 || emptyAuth[2] == 0 {
		return errors.New("the key needs a password")
	}
	w.parent = tpm2.TPMHandle(parent)
	var err error
	if w.public, err = content(public); err != nil {
		return fmt.Errorf("the public part of the key: %w", err)
	}
	if w.private, err = content(private); err != nil {
		return fmt.Errorf("the private part of the key: %w", err)
	}
	if len(w.public)+len(w.private) > maxWrapped {
		return errors.New("the key is larger than any RSA key")
	}
	return nil
}

// maxWrapped is more than a key has, and leaves room in a TPM's command, which has 4096 bytes.
const maxWrapped = 3072

// content returns what is in a TPM2B: two bytes of size and no more than what they say.
func content(sized cryptobyte.String) ([]byte, error) {
	var content cryptobyte.String
	if !sized.ReadUint16LengthPrefixed(&content) || !sized.Empty() || content.Empty() {
		return nil, errors.New("its size is another than it says")
	}
	return content, nil
}

// name returns the Name that a line before the key tells, nil if there is none.
func name(text []byte, line string) []byte {
	for l := range strings.Lines(string(text)) {
		if digits, ok := strings.CutPrefix(l, line); ok {
			name, err := hex.DecodeString(strings.TrimSpace(digits))
			if err == nil && len(name) > 0 {
				return name
			}
		}
		if strings.HasPrefix(l, "-----BEGIN") {
			break
		}
	}
	return nil
}

// keyBits is what IMDS demands of the key in a certificate request.
const keyBits = 2048

// rsaKey returns the RSA key of a TPMT_PUBLIC, if it is one that a binding may have.
func rsaKey(public []byte) (*rsa.PublicKey, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, fmt.Errorf("the public part of the key is malformed: %w", err)
	}
	parameters, err := area.Parameters.RSADetail()
	if err != nil {
		return nil, fmt.Errorf("the key is no RSA key: %w", err)
	}
	unique, err := area.Unique.RSA()
	switch attributes := area.ObjectAttributes; {
	case err != nil:
		return nil, fmt.Errorf("the key is no RSA key: %w", err)
	case !bytes.Equal(tpm2.Marshal(*area), public):
		return nil, errors.New("the public part of the key has more than it needs")
	case parameters.KeyBits != keyBits || len(unique.Buffer) != keyBits/8:
		return nil, fmt.Errorf("the key has %d bits where IMDS demands %d", parameters.KeyBits, keyBits)
	case !attributes.SignEncrypt || attributes.Restricted:
		return nil, errors.New("the key is not one that signs what it is given")
	case !attributes.FixedTPM || !attributes.FixedParent:
		return nil, errors.New("the key is not bound to its TPM")
	}
	exponent := int(parameters.Exponent)
	if exponent == 0 {
		exponent = 65537 // TPM 2.0 Library, part 2, section 12.2.3.5
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(unique.Buffer), E: exponent}, nil
}
