package azmtls

import (
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// otherKeys is a provider of keys that somebody may miss.
type otherKeys struct{ mtls.SoftwareKeys }

// After a mint one key is made to spare, so that neither a heal nor a renewal waits for it: one of mtls.SoftwareKeys, no other.
func TestKeyToSpare(t *testing.T) {
	s := newKeySource(mtls.SoftwareKeys{}, mtls.StrengthNone)
	s.prepare()
	s.prepare()
	require.Eventually(t, func() bool { return len(s.spare) == 1 }, 30*time.Second, time.Millisecond)
	spare := <-s.spare
	s.keep(spare)
	key, err := s.key(t.Context())
	require.NoError(t, err)
	require.Equal(t, spare, key)
	require.Empty(t, s.spare, "it is used once")

	other := newKeySource(otherKeys{}, mtls.StrengthNone)
	require.False(t, other.ahead())
	other.prepare()
	require.Never(t, func() bool { return len(other.spare) > 0 }, 50*time.Millisecond, 10*time.Millisecond)
}
