package tokencache

import (
	"fmt"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// A process that asks for ever new resources keeps those of its valid tokens, and of bound ones a day's more: no place
// of what has expired stays.
func TestMemoryIsBounded(t *testing.T) {
	fake := clock.NewFake(time.Now())
	c, b := New(fake.Clock()), &mtls.Binding{}
	places := func() (resources, tokens int) {
		c.resources.Range(func(any, any) bool { resources++; return true })
		c.issued.Range(func(any, any) bool { tokens++; return true })
		return resources, tokens
	}
	for i := range 5000 {
		key := Key{Resource: fmt.Sprint("https://resource-", i), Bound: i%2 == 0}
		e := c.NewEntry(key, fmt.Sprint("token ", i), time.Hour, time.Hour/2, b)
		e.life = time.Hour // a binding without a certificate has none
		c.Put(e)
		fake.Advance(time.Minute)
		resources, tokens := places()
		require.LessOrEqual(t, resources, 60+2*sweepLeast)
		require.LessOrEqual(t, tokens, 25*60/2+2*sweepLeast)
		if i > 3000 {
			require.GreaterOrEqual(t, resources, 57, "what is valid stays")
			require.GreaterOrEqual(t, tokens, 25*60/2-2, "what was given out of late is known")
		}
	}
}

// A resource may have a token of each kind; one that has expired goes, and the others stay.
func TestSweepLeavesWhatIsValid(t *testing.T) {
	fake := clock.NewFake(time.Now())
	c, b := New(fake.Clock()), &mtls.Binding{}
	short, long := Key{Resource: "r"}, Key{Resource: "r", CAE: true}
	c.Put(c.NewEntry(short, "short", time.Hour, time.Hour, b))
	c.Put(c.NewEntry(long, "long", 24*time.Hour, time.Hour, b))
	fake.Advance(2 * time.Hour)
	require.Equal(t, 1, c.sweep())
	found, ok := c.resources.Load("r")
	require.True(t, ok)
	require.Nil(t, found.(*kinds)[short.kind()].Load())
	require.NotNil(t, found.(*kinds)[long.kind()].Load())
}
