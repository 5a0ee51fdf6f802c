package tpmstore

import (
	"encoding/pem"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// tpmKey is the file of a key, field by field: TPMKey of the draft.
type tpmKey struct {
	pemType         string
	emptyAuth       []byte // what is in the field; nil: it is not there
	policy          []byte // likewise
	public, private []byte // with their sizes
	parent          uint64
	inside, after   []byte // more than there should be
}

func (k tpmKey) file(t *testing.T) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidLoadableKey)
		for n, field := range [][]byte{k.emptyAuth, k.policy} {
			if field != nil {
				b.AddASN1(optional(uint8(n)), func(b *cryptobyte.Builder) { b.AddBytes(field) })
			}
		}
		b.AddASN1Uint64(k.parent)
		b.AddASN1OctetString(k.public)
		b.AddASN1OctetString(k.private)
		b.AddBytes(k.inside)
	})
	b.AddBytes(k.after)
	der, err := b.Bytes()
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: k.pemType, Bytes: der})
}

func sized(content []byte) []byte {
	return append([]byte{byte(len(content) >> 8), byte(len(content))}, content...)
}

// A key's file is read as the draft has it, and one that differs is refused with what is wrong with it.
func TestKeyFile(t *testing.T) {
	const publicSize, privateSize = "the public part of the key: its size", "the private part of the key: its size"
	good := unloadable().wrapped
	for name, test := range map[string]struct {
		edit func(*tpmKey)
		want string
	}{
		"as it should be":    {func(*tpmKey) {}, ""},
		"TRUE is 1":          {func(k *tpmKey) { k.emptyAuth = []byte{1, 1, 1} }, ""}, // tpm2-openssl
		"a policy":           {func(k *tpmKey) { k.policy = []byte{0x30, 0} }, ""},
		"a handle":           {func(k *tpmKey) { k.parent = uint64(persistentSRK) }, ""},
		"another type":       {func(k *tpmKey) { k.pemType = "PRIVATE KEY" }, `there is no "TSS2 PRIVATE KEY"`},
		"no word of it":      {func(k *tpmKey) { k.emptyAuth = nil }, "needs a password"},
		"a password":         {func(k *tpmKey) { k.emptyAuth = []byte{1, 1, 0} }, "needs a password"},
		"a word too short":   {func(k *tpmKey) { k.emptyAuth = []byte{1, 1} }, "needs a password"},
		"a word too long":    {func(k *tpmKey) { k.emptyAuth = []byte{1, 2, 1, 1} }, "needs a password"},
		"a parent too large": {func(k *tpmKey) { k.parent = 1 << 32 }, "malformed"},
		"more inside":        {func(k *tpmKey) { k.inside = []byte{5, 0} }, "malformed"},
		"more after it":      {func(k *tpmKey) { k.after = []byte{5, 0} }, "malformed"},
		"public empty":       {func(k *tpmKey) { k.public = sized(nil) }, publicSize},
		"private empty":      {func(k *tpmKey) { k.private = sized(nil) }, privateSize},
		"one byte":           {func(k *tpmKey) { k.private = []byte{0} }, privateSize},
		"no byte":            {func(k *tpmKey) { k.private = nil }, privateSize},
		"says less":          {func(k *tpmKey) { k.private = append(sized(good.private), 0) }, privateSize},
		"says more":          {func(k *tpmKey) { k.private[1]++ }, privateSize},
		"just fits": {func(k *tpmKey) {
			k.private = sized(make([]byte, maxWrapped-len(good.public)))
		}, ""},
		"does not fit": {func(k *tpmKey) {
			k.private = sized(make([]byte, maxWrapped-len(good.public)+1))
		}, "larger than any RSA key"},
		"not a TPMT_PUBLIC": {func(k *tpmKey) { k.public = sized([]byte("hello")) }, "public part of the key is malformed"},
		"a byte too many":   {func(k *tpmKey) { k.public = sized(append(k.public[2:], 0)) }, "more than it needs"},
	} {
		t.Run(name, func(t *testing.T) {
			k := tpmKey{
				pemType: pemType, emptyAuth: []byte{1, 1, 0xff}, parent: uint64(tpm2.TPMRHOwner),
				public: sized(good.public), private: sized(good.private),
			}
			test.edit(&k)
			w, err := parseWrapped(k.file(t))
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				require.Equal(t, wrapped{}, w)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tpm2.TPMHandle(k.parent), w.parent)
			require.Equal(t, good.public, w.public)
			require.Equal(t, k.private[2:], w.private)
			require.True(t, good.key.Equal(w.key))
			require.Nil(t, w.parentName)
			require.Nil(t, w.storageRoot)
		})
	}
}

// Of a key in the TPM's words, those are taken that a binding may have: RSA of 2048 bits that signs, bound to its TPM.
func TestPublicPart(t *testing.T) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](unloadable().wrapped.public)
	require.NoError(t, err)
	bits := func(bits uint16, bytes int, exponent uint32) func(*tpm2.TPMTPublic) {
		return func(a *tpm2.TPMTPublic) {
			parameters, err := a.Parameters.RSADetail()
			require.NoError(t, err)
			changed := *parameters
			changed.KeyBits, changed.Exponent = tpm2.TPMKeyBits(bits), exponent
			a.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &changed)
			a.Unique = tpm2.NewTPMUPublicID(
				tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: unloadable().wrapped.key.N.Bytes()[:bytes]},
			)
		}
	}
	for name, test := range map[string]struct {
		edit func(*tpm2.TPMTPublic)
		want string
	}{
		"as it should be":   {func(*tpm2.TPMTPublic) {}, ""},
		"an exponent":       {bits(2048, 256, 3), ""},
		"says 1024 bits":    {bits(1024, 256, 0), "1024 bits where IMDS demands 2048"},
		"has 1024 bits":     {bits(2048, 128, 0), "bits where IMDS demands 2048"},
		"does not sign":     {func(a *tpm2.TPMTPublic) { a.ObjectAttributes.SignEncrypt = false }, "not one that signs"},
		"signs its own":     {func(a *tpm2.TPMTPublic) { a.ObjectAttributes.Restricted = true }, "not one that signs"},
		"of any TPM":        {func(a *tpm2.TPMTPublic) { a.ObjectAttributes.FixedTPM = false }, "not bound to its TPM"},
		"of another parent": {func(a *tpm2.TPMTPublic) { a.ObjectAttributes.FixedParent = false }, "not bound to its TPM"},
		"elliptic":          {func(a *tpm2.TPMTPublic) { *a = tpm2.ECCSRKTemplate }, "no RSA key"},
	} {
		t.Run(name, func(t *testing.T) {
			edited := *area
			test.edit(&edited)
			key, err := rsaKey(tpm2.Marshal(edited))
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, unloadable().wrapped.key.N, key.N)
			if name == "an exponent" {
				require.Equal(t, 3, key.E)
			} else {
				require.Equal(t, 65537, key.E)
			}
		})
	}
}

// A Name is read from its line before the key, and from nowhere else.
func TestNameOfAParent(t *testing.T) {
	for text, want := range map[string][]byte{
		"Parent-Name: 000b\n":                                {0, 11},
		"Parent-Name:  000b \r\n":                            {0, 11},
		"hello\nParent-Name: 000b":                           {0, 11},
		"Parent-Name: zz\nParent-Name: 000b\n":               {0, 11},
		"Parent-Name: \n":                                    nil,
		"Other-Name: 000b\n":                                 nil,
		"-----BEGIN TSS2 PRIVATE KEY-----\nParent-Name: 0b":  nil,
		"Parent-Name: 0b0\n-----BEGIN TSS2 PRIVATE KEY-----": nil,
	} {
		require.Equal(t, want, name([]byte(text), parentNameLine), "%q", text)
	}
}
