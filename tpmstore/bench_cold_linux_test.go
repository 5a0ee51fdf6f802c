package tpmstore_test

import (
	"testing"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/compare"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/stretchr/testify/require"
)

// BenchmarkTPMColdStart puts the first token of a process, over a key in the TPM that is kept, with and without a
// binding in the folder, beside that of one that makes a key in software. IMDS and Entra answer at once.
func BenchmarkTPMColdStart(b *testing.B) {
	tpm := tpmstore.StartTPM(b)
	server := imdstest.NewServer(nil)
	defer server.Close()
	folder := b.TempDir()
	keys := tpmstore.Keys{Device: tpm.Socket, Folder: folder}
	first := func(keys mtls.KeyProvider, store mtls.Store) func() {
		return func() {
			options := server.CredentialOptions()
			options.KeyProvider, options.Store = keys, store
			cred, err := azmtls.NewImdsV2MtlsCredential(options)
			require.NoError(b, err)
			require.NoError(b, getToken(b.Context(), cred))
			require.NoError(b, cred.Close())
		}
	}
	software := compare.Each(1, first(mtls.SoftwareKeys{}, mtls.NoStore{}))
	b.Run("new", func(b *testing.B) {
		compare.Turns(b, compare.Each(1, first(keys, mtls.NoStore{})), software)
	})
	b.Run("stored", func(b *testing.B) {
		stored := first(keys, tpmstore.Store{Folder: folder})
		stored()
		compare.Turns(b, func() float64 {
			issued := server.Counts().Issued
			took := compare.Each(1, stored)()
			require.Equal(b, issued, server.Counts().Issued, "no mint")
			return took
		}, software)
	})
}
