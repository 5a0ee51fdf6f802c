package clock_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/stretchr/testify/require"
)

// Boot time is the kernel's, which counts sleep: that of the process would leave out what was slept through.
func TestBootIsTheKernels(t *testing.T) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Skipf("the kernel does not tell its uptime: %v", err)
	}
	seconds, _, _ := strings.Cut(string(uptime), " ")
	up, err := time.ParseDuration(seconds + "s")
	require.NoError(t, err)
	var real *clock.Clock
	require.InDelta(t, up.Seconds(), real.Boot().Seconds(), 30)
}
