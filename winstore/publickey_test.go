package winstore

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func cngBlob(k *rsa.PublicKey) []byte {
	exponent, modulus := []byte{1, 0, 1}, k.N.Bytes()
	var blob []byte
	for _, word := range []uint32{rsaPublicMagic, uint32(k.N.BitLen()), uint32(len(exponent)), uint32(len(modulus)), 0, 0} {
		blob = binary.LittleEndian.AppendUint32(blob, word)
	}
	return append(append(blob, exponent...), modulus...)
}

func capiBlob(k *rsa.PublicKey) []byte {
	blob := []byte{6, 2, 0, 0, 0, 0xa4, 0, 0}
	for _, word := range []uint32{rsaPublicMagic, uint32(k.N.BitLen()), uint32(k.E)} {
		blob = binary.LittleEndian.AppendUint32(blob, word)
	}
	modulus := k.N.Bytes()
	slices.Reverse(modulus)
	return append(blob, modulus...)
}

// The two blobs of Windows are read alike, and no length in them is trusted.
func TestPublicKeyBlobs(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		blob  []byte
		magic int // where it is
		parse func([]byte) (*rsa.PublicKey, error)
	}{
		"CNG":       {cngBlob(&k.PublicKey), 0, parseRSAPublicBlob},
		"CryptoAPI": {capiBlob(&k.PublicKey), 8, parsePublicKeyBlob},
	} {
		t.Run(name, func(t *testing.T) {
			public, err := test.parse(test.blob)
			require.NoError(t, err)
			require.True(t, public.Equal(&k.PublicKey))
			for n := range test.blob {
				_, err := test.parse(test.blob[:n])
				require.ErrorIs(t, err, errBlob, "the first %d bytes", n)
			}
			_, err = test.parse(append(test.blob, 0))
			require.ErrorIs(t, err, errBlob)
			for magic := range 4 {
				other := slices.Clone(test.blob)
				other[test.magic+magic]++
				_, err := test.parse(other)
				require.ErrorIs(t, err, errBlob, "another kind of key")
			}
		})
	}
}

// A key has an exponent of 2 to 31 bits, as crypto/rsa takes it, and a modulus.
func TestExponents(t *testing.T) {
	require.Equal(t, "RSA1", string(binary.LittleEndian.AppendUint32(nil, rsaPublicMagic)))
	for exponent, good := range map[int64]bool{
		0: false, 1: false, 2: true, 3: true, 65537: true, 1<<31 - 1: true, 1 << 31: false, 1 << 40: false,
	} {
		k, err := rsaPublicKey(big.NewInt(exponent), []byte{0, 7})
		require.Equal(t, good, err == nil, exponent)
		if good {
			require.Equal(t, &rsa.PublicKey{N: big.NewInt(7), E: int(exponent)}, k)
		}
		_, err = rsaPublicKey(big.NewInt(exponent), []byte{0, 0})
		require.ErrorIs(t, err, errBlob)
	}
}

// CryptoAPI says what a blob holds: that of a private key is none.
func TestBlobOfAPrivateKey(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	blob := capiBlob(&k.PublicKey)
	blob[0]++ // PRIVATEKEYBLOB
	_, err = parsePublicKeyBlob(blob)
	require.ErrorIs(t, err, errBlob)
}

func FuzzPublicKeyBlobs(f *testing.F) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cngBlob(&k.PublicKey))
	f.Add(capiBlob(&k.PublicKey))
	f.Fuzz(func(t *testing.T, blob []byte) {
		for _, parse := range []func([]byte) (*rsa.PublicKey, error){parseRSAPublicBlob, parsePublicKeyBlob} {
			if public, err := parse(blob); err == nil && (public.N.Sign() <= 0 || public.E < 2) {
				t.Fatalf("a key that is none: %v", public)
			}
		}
	})
}
