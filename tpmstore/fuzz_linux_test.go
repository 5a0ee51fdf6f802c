package tpmstore

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var someTime = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

// Whatever lies in the folder: what is read as a record is one that was written, to the byte that counts, and what
// comes of it is a binding of this alias.
func FuzzRecord(f *testing.F) {
	k := unloadable()
	b, err := newAuthority(f).binding(k, someTime, someTime.Add(7*day))
	require.NoError(f, err)
	good, err := newRecord(alias, b, k).encode()
	require.NoError(f, err)
	_, body, _ := bytes.Cut(good, []byte("\n"))
	f.Add(good, true)
	f.Add(body, false)
	f.Add(bytes.ReplaceAll(body, []byte("https"), []byte("http")), false)
	f.Add([]byte(`{"alias":"`+alias+`","certificate":null}`), false)
	f.Add([]byte("azmtls binding v2 00\n{}"), true)
	f.Fuzz(func(t *testing.T, data []byte, whole bool) {
		if !whole { // the checksum would keep all else out
			data = append([]byte(headLine(data)), data...)
		}
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err == nil {
			same, err := decodeRecord(again)
			require.NoError(t, err)
			require.Equal(t, r, same)
		}
		b, err := r.binding(alias)
		if err != nil {
			return
		}
		require.Equal(t, alias, r.Alias)
		require.Equal(t, r.Certificate, b.Certificate.Leaf.Raw)
		require.True(t, b.Certificate.PrivateKey.(*key).wrapped.key.Equal(b.Certificate.Leaf.PublicKey))
		_, err = storable(alias, b)
		require.NoError(t, err, "what can be loaded can be saved")
	})
}

// A key that is read can be written and read again, and is small enough for a TPM's command.
func FuzzKeyFile(f *testing.F) {
	good := unloadable().wrapped.encode()
	f.Add(good)
	f.Add(good[bytes.IndexByte(good, '-'):])
	f.Add([]byte("Parent-Name: 000b\n-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := parseWrapped(text)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(w.public)+len(w.private), maxWrapped)
		require.Equal(t, keyBits, w.key.N.BitLen())
		same, err := parseWrapped(w.encode())
		require.NoError(t, err)
		require.Equal(t, w, same)
	})
}
