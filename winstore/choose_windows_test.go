package winstore

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// The diagnosis tells what Key does, whatever the machine is like and has done before, and leaves no trace.
func TestChooseTellsWhatKeyDoes(t *testing.T) {
	failing := failed("NCryptCreatePersistedKey", syscall.Errno(windows.NTE_FAIL))
	locked := failed("NCryptOpenKey", syscall.Errno(windows.NTE_DEVICE_NOT_READY))
	for name, machine := range map[string]func() *fakeStorage{
		"KeyGuard":        func() *fakeStorage { return &fakeStorage{} },
		"no isolation":    func() *fakeStorage { return &fakeStorage{noIsolation: true} },
		"no TPM":          func() *fakeStorage { return &fakeStorage{noIsolation: true, noTPM: true} },
		"TPM without PSS": func() *fakeStorage { return &fakeStorage{noIsolation: true, noPSS: platformProvider} },
		"nothing": func() *fakeStorage {
			return &fakeStorage{noTPM: true, createError: map[string]error{"KeyGuardRSAKey": failing, "SoftwareRSAKey": failing}}
		},
		"not now": func() *fakeStorage {
			s := &fakeStorage{}
			chosen(t, s)
			s.openError = map[string]error{"KeyGuardRSAKey": locked}
			return s
		},
		"KeyGuard after a reboot": func() *fakeStorage {
			s := &fakeStorage{}
			chosen(t, s)
			s.reboot()
			return s
		},
		"isolation gone after a reboot": func() *fakeStorage {
			s := &fakeStorage{}
			chosen(t, s)
			s.reboot()
			s.noIsolation = true
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			storage := machine()
			before, open := len(storage.events), storage.handles()
			strength, foreseen, err := diagnose(t.Context(), storage)
			require.NoError(t, err)
			require.Len(t, storage.events, before, "nothing is made, replaced or removed")
			require.Equal(t, open, storage.handles())

			k, passedOver := chosen(t, storage)
			require.Equal(t, k.Strength(), strength)
			require.Len(t, foreseen, len(passedOver))
			for i, p := range passedOver {
				require.Equal(t, p.Provider, foreseen[i].Provider)
				require.Equal(t, p.Strength, foreseen[i].Strength)
				if code := (*statusError)(nil); errors.As(p.Err, &code) {
					require.ErrorContains(t, foreseen[i].Err, code.Error())
				} else {
					require.ErrorIs(t, foreseen[i].Err, p.Err)
				}
			}
			strength, _, err = diagnose(t.Context(), storage)
			require.NoError(t, err)
			require.Equal(t, k.Strength(), strength, "and so it stays")
		})
	}
}

// The diagnosis ends when nobody waits for it.
func TestChooseIsCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := Keys{}.Choose(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// The real CNG makes keys without a name, and keeps none.
func TestChooseOnThisMachine(t *testing.T) {
	strength, passedOver, err := Keys{}.Choose(t.Context())
	require.NoError(t, err)
	k, reasons := chosen(t, ncrypt{})
	require.Equal(t, k.Strength(), strength)
	require.Len(t, passedOver, len(reasons))
	if UnderWine() {
		require.Equal(t, mtls.StrengthSoftware, strength)
		require.Len(t, passedOver, 2, "the software provider makes a key without a name")
	}
}
