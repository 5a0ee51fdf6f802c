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

// A machine that has just booted remembers nothing yet.
func TestHostsAfterBoot(t *testing.T) {
	var h host
	require.False(t, h.knows(time.Minute))
	require.False(t, h.lose(100*time.Millisecond))
	require.False(t, h.lose(200*time.Millisecond))
	require.True(t, h.lose(350*time.Millisecond))
}

// Hosts that were not used for as long as what is known of them counts are forgotten together; the others stay as long
// as there is room.
func TestIdleHostsAreForgotten(t *testing.T) {
	var known hosts
	for i := range maxHosts {
		known.add(fmt.Sprintf("host-%d:443", i), false, time.Duration(i)*time.Millisecond)
	}
	longest := max(confirmWithin, knownFor)
	known.add("another:443", false, longest+10*time.Millisecond+1)
	require.Len(t, known.known, maxHosts-11+1)
	require.Nil(t, known.find("host-10:443"))
	require.NotNil(t, known.find("host-11:443"))
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
