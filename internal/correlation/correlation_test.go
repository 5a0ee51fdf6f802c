package correlation_test

import (
	"testing"

	"github.com/azmtls/azmtls/internal/correlation"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// A context keeps its id, and without one every request has another.
func TestID(t *testing.T) {
	require.Equal(t, "id", correlation.ID(correlation.With(t.Context(), "id")))
	fresh := correlation.ID(t.Context())
	require.NoError(t, uuid.Validate(fresh))
	require.NotEqual(t, fresh, correlation.ID(t.Context()))
}
