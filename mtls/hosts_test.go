package mtls

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/stretchr/testify/require"
)

// discard is a connection that takes everything.
type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Two lost connections confirm each other from 250 ms to 5 min apart, unless the host accepted the binding between. The
// first one counts: one that comes too soon does not take its place.
func TestLossesConfirmEachOther(t *testing.T) {
	fake := clock.NewFake(time.Now())
	at := fake.Boot()
	var h host
	require.False(t, h.lose(at))
	require.False(t, h.lose(at+249*time.Millisecond))
	require.True(t, h.lose(at+250*time.Millisecond), "counted from the first")
	require.True(t, h.lose(at+5*time.Minute))
	require.False(t, h.lose(at+5*time.Minute+1), "too late: it is a first one again")
	require.True(t, h.lose(at+6*time.Minute))
	fake.Advance(6 * time.Minute)
	h.accept(fake.Clock())
	require.False(t, h.lose(at+7*time.Minute))
	require.True(t, h.knows(at+11*time.Minute))
	require.False(t, h.knows(at+11*time.Minute+1))
	require.False(t, new(host).knows(at))
}

// What a Transport remembers is bounded: those not used for long are forgotten first.
func TestHostsAreBounded(t *testing.T) {
	var known hosts
	busy := known.add("busy:443", false, time.Hour)
	fake := clock.NewFake(time.Now())
	for i := range 10 * maxHosts {
		fake.Advance(time.Second)
		now := fake.Boot()
		busy.accept(fake.Clock())
		require.Same(t, busy, known.find("busy:443"))
		known.add(fmt.Sprintf("host-%d:443", i), false, now)
		require.LessOrEqual(t, len(known.known), maxHosts)
	}
}
