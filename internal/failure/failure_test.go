package failure_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/azmtls/azmtls/internal/failure"
	"github.com/stretchr/testify/require"
)

var errCause = errors.New("the cause")

// retriable is how azcore's retry policy asks: by the method, anywhere in the chain.
func retriable(err error) bool {
	var final interface{ NonRetriable() }
	return !errors.As(err, &final)
}

// A mark changes nothing of an error but what it says by it, survives wrapping and joining, and hides no cause.
func TestMarks(t *testing.T) {
	for name, test := range map[string]struct {
		err                 error
		definite, retriable bool
	}{
		"unmarked":            {errCause, false, true},
		"final for azcore":    {failure.NonRetriable(errCause), false, false},
		"final, wrapped":      {fmt.Errorf("minting: %w", failure.NonRetriable(errCause)), false, false},
		"definite":            {failure.Definite(errCause), true, true},
		"definite, wrapped":   {fmt.Errorf("minting: %w", failure.Definite(errCause)), true, true},
		"definite, joined":    {errors.Join(errors.New("v1 failed"), failure.Definite(errCause)), true, true},
		"both":                {failure.Definite(failure.NonRetriable(errCause)), true, false},
		"both, the other way": {failure.NonRetriable(failure.Definite(errCause)), true, false},
		"its text alone":      {fmt.Errorf("%v: %w", failure.Definite(errors.New("x")), errCause), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.definite, failure.IsDefinite(test.err))
			require.Equal(t, test.retriable, retriable(test.err))
			require.ErrorIs(t, test.err, errCause)
			require.ErrorContains(t, test.err, "the cause")
		})
	}
	require.Equal(t, "the cause", failure.Definite(errCause).Error())
	require.Equal(t, "the cause", failure.NonRetriable(errCause).Error())
	require.False(t, failure.IsDefinite(nil))
}

func TestIs(t *testing.T) {
	path := &fs.PathError{Op: "open", Path: "x", Err: errCause}
	require.True(t, failure.Is[*fs.PathError](path))
	require.True(t, failure.Is[*fs.PathError](fmt.Errorf("loading: %w", path)))
	require.False(t, failure.Is[*fs.PathError](errCause))
	require.False(t, failure.Is[*fs.PathError](nil))
}
