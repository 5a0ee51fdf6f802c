package tpmstore

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"path/filepath"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

var someTime = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

// BenchmarkSign puts a signature of the TPM beside one in software: PSS over SHA-256, as TLS and certificate requests
// have it.
func BenchmarkSign(b *testing.B) {
	tpm := startTPM(b)
	software, err := mtls.SoftwareKeys{}.Key(b.Context())
	require.NoError(b, err)
	for name, k := range map[string]mtls.Key{"tpm": tpmKeyOf(b, Keys{tpm.Socket, b.TempDir()}), "software": software} {
		b.Run(name, func(b *testing.B) {
			options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
			for b.Loop() {
				if _, err := k.Sign(rand.Reader, probe[:], options); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNewKey puts the making of a key in the TPM beside that in software, and beside finding the one that is kept.
func BenchmarkNewKey(b *testing.B) {
	tpm := startTPM(b)
	folder := b.TempDir()
	tpmKeyOf(b, Keys{tpm.Socket, folder})
	for name, key := range map[string]func(b *testing.B) (mtls.Key, error){
		"tpm": func(b *testing.B) (mtls.Key, error) { return newKey(b.Context(), newDevice(tpm.Socket)) },
		"tpm-kept": func(b *testing.B) (mtls.Key, error) {
			return Keys{tpm.Socket, folder}.Key(b.Context())
		},
		"software": func(b *testing.B) (mtls.Key, error) { return mtls.SoftwareKeys{}.Key(b.Context()) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := key(b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStore is saving, loading and deleting a binding on the disk of the machine.
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
	require.FileExists(b, filepath.Join(folder, folderName, fileName(alias)))
}
