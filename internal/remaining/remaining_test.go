package remaining_test

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/remaining"
	"github.com/stretchr/testify/require"
)

// More than 24 hours must be left, and the token window be open.
func TestVet(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		left, window time.Duration
		want         string
	}{
		{left: 24*time.Hour + 1, window: 24 * time.Hour},
		{left: 48 * time.Hour, window: 1},
		{left: 24 * time.Hour, window: 24 * time.Hour, want: "24 hours"},
		{left: 1, window: 1, want: "24 hours"},
		{left: 0, window: 0, want: "expired"},
		{left: -time.Hour, window: -time.Hour, want: "expired"},
		{left: 48 * time.Hour, window: -time.Second, want: "token window"},
		{left: 48 * time.Hour, window: 0, want: "token window"},
	} {
		err := remaining.Vet(now.Add(test.left), now.Add(test.window), now)
		if test.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.want)
		}
	}
}
