package winstore

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
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
