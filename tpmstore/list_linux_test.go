package tpmstore

import (
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// List tells of a dead key without deleting its binding, and of no folder without making one.
func TestListOnlyLooks(t *testing.T) {
	s := newShelf(t)
	listed, err := s.list(t.Context())
	require.NoError(t, err)
	require.Empty(t, listed)
	require.NoDirExists(t, s.dir)

	thumbprint, file := s.saved()
	s.proof = errDead
	for range 2 {
		listed, err = s.list(t.Context())
		require.NoError(t, err)
		require.Len(t, listed, 1)
		require.ErrorIs(t, listed[0].Err, errDead)
		require.Equal(t, alias, listed[0].Alias)
		require.Equal(t, thumbprint, listed[0].Binding.Thumbprint())
		require.Equal(t, mtls.StrengthTPM, listed[0].Binding.Strength())
		require.FileExists(t, file)
	}
	s.proof = nil
	require.Equal(t, thumbprint, s.loaded())
}
