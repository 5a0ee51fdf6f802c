package tpmstore_test

import (
	"testing"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
	"github.com/stretchr/testify/require"
)

// BenchmarkColdStart is the first token of a process: over a key in software, over one in the TPM that is kept, with
// and without a binding in the folder. IMDS and Entra answer at once.
func BenchmarkColdStart(b *testing.B) {
	tpm := tpmstore.StartTPM(b)
	server := imdstest.NewServer(nil)
	defer server.Close()
	folder := b.TempDir()
	keys, store := tpmstore.Keys{Device: tpm.Socket, Folder: folder}, tpmstore.Store{Folder: folder}
	for _, c := range []struct {
		name  string
		keys  mtls.KeyProvider
		store mtls.Store
	}{
		{"software", mtls.SoftwareKeys{}, mtls.NoStore{}},
		{"tpm", keys, mtls.NoStore{}},
		{"tpm-stored", keys, store},
	} {
		b.Run(c.name, func(b *testing.B) {
			first := func() {
				cred, err := azmtls.NewImdsV2MtlsCredential(&azmtls.ImdsV2MtlsCredentialOptions{
					ClientOptions: server.ClientOptions(), MTLSTransport: server.MTLSTransport(),
					KeyProvider: c.keys, Store: c.store, Cache: &mtls.Cache{},
				})
				require.NoError(b, err)
				require.NoError(b, getToken(b.Context(), cred))
				require.NoError(b, cred.Close())
			}
			first() // makes the key, and the binding where there is a store
			issued := server.Counts().Issued
			for b.Loop() {
				first()
			}
			if c.name == "tpm-stored" {
				require.Equal(b, issued, server.Counts().Issued, "no mint")
			}
		})
	}
}
