package eventlog_test

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/stretchr/testify/require"
)

// costly counts how often it is written out.
type costly struct{ times *int }

func (c costly) String() string { *c.times++; return "binding" }

// Events reach the listener that the user gave to azcore, if it is one of those that the user wants to hear of. Those
// that nobody hears cost no formatting.
func TestWritef(t *testing.T) {
	t.Cleanup(func() {
		log.SetListener(nil)
		log.SetEvents()
	})
	written := 0
	eventlog.Writef(t.Context(), eventlog.Recovery, "evicted %s", costly{&written})
	require.Zero(t, written, "nobody listens")

	var heard []string
	log.SetListener(func(event log.Event, message string) { heard = append(heard, string(event)+": "+message) })
	eventlog.Writef(t.Context(), eventlog.Recovery, "evicted %s, %d left", costly{&written}, 2)
	eventlog.Writef(t.Context(), eventlog.Binding, "minted")
	require.Equal(t, []string{"azmtls.Recovery: evicted binding, 2 left", "azmtls.Binding: minted"}, heard)

	heard, written = nil, 0
	log.SetEvents(eventlog.Authentication)
	eventlog.Writef(t.Context(), eventlog.Recovery, "evicted %s", costly{&written})
	eventlog.Writef(t.Context(), eventlog.Authentication, "100 %%")
	require.Equal(t, []string{"azmtls.Authentication: 100 %"}, heard)
	require.Zero(t, written)
}

// What is shown tells log lines apart and discloses no identifier. The suffix of an alias says whether its key was
// attested.
func TestMask(t *testing.T) {
	for from, want := range map[string]string{
		"":                                     "",
		"short":                                "short",
		"sixsix":                               "sixsix",
		"seven77":                              "seven7…",
		"11111111-2222-3333-4444-555555555555": "111111…",
		"11111111-2222-3333-4444-555555555555#att=1": "111111…#att=1",
		"system_assigned_managed_identity#att=0":     "system…#att=0",
		"a#att=0#att=1":                              "a#att=…#att=1",
		"#att=none":                                  "#att=none",
		"/subscriptions/secret#fragment":             "/subsc…",
		"ключиключи":                                 "ключик…",
	} {
		require.Equal(t, want, eventlog.Mask(from), from)
	}
}
