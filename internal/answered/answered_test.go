package answered_test

import (
	"sync/atomic"
	"testing"

	"github.com/azmtls/azmtls/internal/answered"
	"github.com/stretchr/testify/require"
)

// A context carries the note itself, and no other has one.
func TestNote(t *testing.T) {
	var note atomic.Bool
	require.Same(t, &note, answered.Note(answered.With(t.Context(), &note)))
	require.Nil(t, answered.Note(t.Context()))
}
