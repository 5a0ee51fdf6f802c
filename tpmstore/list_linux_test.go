package tpmstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// List tells of every file of a binding, many as they are, why Load would not give it; what is half written or set
// aside is none.
func TestListTellsOfEach(t *testing.T) {
	s := newShelf(t)
	good, file := s.saved()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	put := func(name string, text []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), text, 0o600))
	}
	ended := s.binding(8*day, -time.Hour)
	r, err := newRecord("ended", ended, unloadable()).encode()
	require.NoError(t, err)
	put(fileName("ended"), r)
	put(fileName("another"), text)
	put(temporary+fileName("half"), text)
	put(fileName("aside")+".bad", text)
	const many = 1200 // more than are read at once
	for n := range many {
		put(fileName(fmt.Sprint("garbage ", n)), []byte("garbage"))
	}
	listed, err := s.list(t.Context())
	require.NoError(t, err)
	said := map[string]int{}
	for _, stored := range listed {
		switch {
		case stored.Err == nil:
			require.Equal(t, good, stored.Binding.Thumbprint())
			said["good"]++
		case stored.Alias == "ended":
			require.ErrorContains(t, stored.Err, "expired")
			require.Equal(t, ended.Thumbprint(), stored.Binding.Thumbprint())
			said["ended"]++
		case strings.Contains(stored.Err.Error(), "another alias"):
			said["another"]++
		default:
			require.ErrorContains(t, stored.Err, "would be set aside")
			said["garbage"]++
		}
	}
	require.Equal(t, map[string]int{"good": 1, "ended": 1, "another": 1, "garbage": many}, said)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.list(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
