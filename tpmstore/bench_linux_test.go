package tpmstore

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/compare"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// BenchmarkTPMKey puts a key of the TPM beside one in software: a signature (PSS over SHA-256, as TLS and certificate
// requests have it), making one, and finding the one that is kept where the other has to be made.
func BenchmarkTPMKey(b *testing.B) {
	tpm := startTPM(b)
	keys := Keys{tpm.Socket, b.TempDir()}
	kept := tpmKeyOf(b, keys)
	software, err := mtls.SoftwareKeys{}.Key(b.Context())
	require.NoError(b, err)
	sign := func(k mtls.Key) func() {
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return func() {
			_, err := k.Sign(rand.Reader, probe[:], options)
			require.NoError(b, err)
		}
	}
	made := func(key func() (mtls.Key, error)) func() {
		return func() {
			_, err := key()
			require.NoError(b, err)
		}
	}
	inSoftware := made(func() (mtls.Key, error) { return mtls.SoftwareKeys{}.Key(b.Context()) })
	b.Run("sign", func(b *testing.B) {
		compare.Turns(b, compare.Each(10, sign(kept)), compare.Each(10, sign(software)))
	})
	b.Run("new", func(b *testing.B) {
		inTPM := made(func() (mtls.Key, error) { return newKey(b.Context(), newDevice(tpm.Socket)) })
		compare.Turns(b, compare.Each(1, inTPM), compare.Each(1, inSoftware))
	})
	b.Run("kept", func(b *testing.B) {
		found := made(func() (mtls.Key, error) { return keys.Key(b.Context()) })
		compare.Turns(b, compare.Each(1, found), compare.Each(1, inSoftware))
	})
}

// BenchmarkStore is saving and loading a binding on the disk of the machine.
func BenchmarkStore(b *testing.B) {
	tpm := startTPM(b)
	folder := b.TempDir()
	k := tpmKeyOf(b, Keys{tpm.Socket, folder})
	binding, err := newAuthority(b).binding(k, time.Now(), time.Now().Add(7*day))
	require.NoError(b, err)
	store := Store{folder}
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, store.Save(b.Context(), alias, binding))
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			_, err := store.Load(b.Context(), alias)
			require.NoError(b, err)
		}
	})
}
