package winstore

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// chosen returns the key that would be used, closed when the test ends, and why others are not.
func chosen(t *testing.T, storage keyStorage) (mtls.Key, []mtls.PassedOver) {
	k, passedOver, err := strongest(t.Context(), storage)
	require.NoError(t, err)
	if closer, ok := k.(*key); ok {
		t.Cleanup(func() { require.NoError(t, closer.Close()) })
	}
	return k, passedOver
}

// The strongest that the machine has is used, and why others are not is told.
func TestTiers(t *testing.T) {
	full := failed("NCryptCreatePersistedKey", syscall.Errno(windows.NTE_TOKEN_KEYSET_STORAGE_FULL))
	for name, test := range map[string]struct {
		storage    *fakeStorage
		want       mtls.BindingStrength
		passedOver []string
	}{
		"KeyGuard":         {&fakeStorage{}, mtls.StrengthKeyGuard, nil},
		"not isolated":     {&fakeStorage{noIsolation: true}, mtls.StrengthTPM, []string{"virtualization-based security"}},
		"KeyGuard refused": {&fakeStorage{createError: map[string]error{"KeyGuardRSAKey": full}}, mtls.StrengthTPM, []string{"0x80090023"}},
		"no TPM":           {&fakeStorage{noIsolation: true, noTPM: true}, mtls.StrengthSoftware, []string{"virtualization", "no TPM"}},
		"TPM without PSS":  {&fakeStorage{noIsolation: true, noPSS: platformProvider}, mtls.StrengthSoftware, []string{"virtualization", "RSASSA-PSS"}},
	} {
		t.Run(name, func(t *testing.T) {
			k, passedOver := chosen(t, test.storage)
			require.Equal(t, test.want, k.Strength())
			require.Len(t, passedOver, len(test.passedOver))
			for i, reason := range test.passedOver {
				require.ErrorContains(t, passedOver[i].Err, reason)
			}
			require.Equal(t, 1, test.storage.handles(), "those passed over are closed")
			again, _ := chosen(t, test.storage)
			require.True(t, again.(*key).public.Equal(k.Public()), "a key that works is used on")
		})
	}
}

// Where Windows keeps no key at all there is still one in memory. It is never stored.
func TestInMemoryTier(t *testing.T) {
	broken := failed("NCryptCreatePersistedKey", syscall.Errno(windows.NTE_FAIL))
	storage := &fakeStorage{noTPM: true, createError: map[string]error{"KeyGuardRSAKey": broken, "SoftwareRSAKey": broken}}
	k, passedOver := chosen(t, storage)
	require.Equal(t, mtls.StrengthSoftware, k.Strength())
	require.Len(t, passedOver, 3)
	require.ErrorContains(t, passedOver[2].Err, "NTE_FAIL")
	require.IsNotType(t, &key{}, k)
}

// A stored key is as strong as it can prove to be, whatever its provider is called.
func TestStrengthOfStoredKeys(t *testing.T) {
	storage := &fakeStorage{}
	isolated, plain := &fakeKey{storage: storage, isolates: true}, &fakeKey{storage: storage}
	require.Equal(t, mtls.StrengthKeyGuard, strengthOf(isolated, softwareProvider, &fakeStorage{}))
	require.Equal(t, mtls.StrengthTPM, strengthOf(plain, platformProvider, &fakeStorage{}))
	require.Equal(t, mtls.StrengthSoftware, strengthOf(plain, platformProvider, &fakeStorage{noTPM: true}))
	require.Equal(t, mtls.StrengthSoftware, strengthOf(plain, softwareProvider, &fakeStorage{}))
	storage.isolationError = failed("F", windows.RPC_S_CALL_FAILED)
	require.Equal(t, mtls.StrengthSoftware, strengthOf(isolated, softwareProvider, &fakeStorage{}))
}

// A KeyGuard key that was not isolated would be taken for one by whoever opens it next: it does not stay.
func TestKeyWithoutIsolationIsRemoved(t *testing.T) {
	storage := &fakeStorage{noIsolation: true}
	_, _ = chosen(t, storage)
	require.Equal(
		t,
		[]string{"created KeyGuardRSAKey", "removed KeyGuardRSAKey", "created HardwareRSAKey"},
		storage.events,
	)
}

// A key of an earlier boot opens and does not sign. It is made anew, and the certificates of the old one go: the stores
// of every alias, but none whose key is elsewhere, none of other issuers.
func TestKeyGuardAfterReboot(t *testing.T) {
	f := newFixture(t)
	storage := &fakeStorage{}
	old, _ := chosen(t, storage)
	guarded := container{provider: softwareProvider, name: "KeyGuardRSAKey"}
	other := f.newAlias(uuid.NewString())
	gone := []*mtls.Binding{f.bindingFor(9 * day), f.bindingFor(8 * day), f.bindingFor(7 * day)}
	f.plantIn(f.alias, gone[0], guarded)
	f.plantIn(other, gone[1], guarded)
	f.plant("", gone[2].Certificate.Leaf, container{})
	kept := f.bindingFor(6 * day)
	f.plantAs(f.alias, kept)
	f.authority.certificate.Subject.CommonName = "issuer of something else"
	unrelated := f.bindingFor(9 * day)
	f.plantIn(other, unrelated, guarded)

	storage.reboot()
	fresh, passedOver := chosen(t, storage)
	require.Empty(t, passedOver)
	require.Equal(t, mtls.StrengthKeyGuard, fresh.Strength())
	require.False(t, fresh.(*key).public.Equal(old.Public()))
	require.Equal(t, []string{"created KeyGuardRSAKey", "replaced KeyGuardRSAKey"}, storage.events)
	for _, b := range gone {
		require.Zero(t, count(t, b.Thumbprint()))
	}
	require.Equal(t, []string{kept.Thumbprint()}, f.stored(f.alias))
	require.Equal(t, []string{unrelated.Thumbprint()}, f.stored(other))
}

// Another program may have left a software key under the name.
func TestKeyUnderTheNameOfKeyGuardIsReplaced(t *testing.T) {
	storage := &fakeStorage{noIsolation: true}
	squatter, err := storage.create(softwareProvider, "KeyGuardRSAKey", 0)
	require.NoError(t, err)
	squatter.close()
	storage.noIsolation = false
	k, _ := chosen(t, storage)
	require.Equal(t, mtls.StrengthKeyGuard, k.Strength())
	require.Equal(t, "replaced KeyGuardRSAKey", storage.events[1])
}

// troubles are statuses that say nothing of whether a key is good; deaths say that it is dead or gone.
var (
	troubles = []syscall.Errno{
		syscall.Errno(windows.NTE_FAIL),
		syscall.Errno(windows.NTE_INTERNAL_ERROR),
		syscall.Errno(windows.NTE_DEVICE_NOT_READY),
		syscall.Errno(windows.NTE_DEVICE_NOT_FOUND),
		syscall.Errno(windows.NTE_SYS_ERR),
		syscall.Errno(windows.NTE_PERM),
		syscall.Errno(windows.NTE_NO_MEMORY),
		syscall.Errno(windows.NTE_SILENT_CONTEXT),
		syscall.Errno(windows.NTE_UI_REQUIRED),
		syscall.Errno(windows.NTE_PROVIDER_DLL_FAIL),
		syscall.Errno(windows.NTE_TEMPORARY_PROFILE),
		syscall.Errno(windows.NTE_BAD_KEY_STATE), // the user's master key cannot be reached
		syscall.Errno(windows.TPM_20_E_LOCKOUT),
		syscall.Errno(windows.TPM_20_E_RETRY),
		syscall.Errno(windows.TBS_E_SERVICE_NOT_RUNNING),
		syscall.Errno(windows.TPM_E_PCP_DEVICE_NOT_READY),
		syscall.Errno(windows.TPM_20_E_FAILURE),
		windows.ERROR_ACCESS_DENIED,
		windows.ERROR_BUSY,
		windows.ERROR_TIMEOUT,
		windows.RPC_S_SERVER_UNAVAILABLE,
		windows.RPC_S_SERVER_TOO_BUSY,
		windows.RPC_S_CALL_FAILED,
		windows.RPC_S_COMM_FAILURE,
		0x800706BA, // RPC_S_SERVER_UNAVAILABLE as HRESULT
		0x8BADF00D,
	}
	deaths = []syscall.Errno{
		syscall.Errno(windows.NTE_BAD_KEYSET),
		syscall.Errno(windows.NTE_NO_KEY),
		syscall.Errno(windows.NTE_NOT_FOUND),
		syscall.Errno(windows.NTE_BAD_KEY),
		syscall.Errno(windows.NTE_BAD_DATA),
		syscall.Errno(windows.NTE_KEYSET_ENTRY_BAD),
		syscall.Errno(windows.TPM_20_E_INTEGRITY),
		0x8009003A, // NTE_VBS_CANNOT_DECRYPT_KEY
		0x80070002, // ERROR_FILE_NOT_FOUND as HRESULT
	}
)

// A key is replaced when it is known to be dead, never because it cannot be reached now: certificates depend on it. The
// diagnosis tells the one from the other.
func TestKeyIsKeptThroughTrouble(t *testing.T) {
	name := keyGuard.name
	where := map[string]func(*fakeStorage, error){
		"opening":    func(s *fakeStorage, err error) { s.openError = map[string]error{name: err} },
		"signing":    func(s *fakeStorage, err error) { s.keys[softwareProvider+name].dead = err },
		"a property": func(s *fakeStorage, err error) { s.isolationError = err },
	}
	for stage, fail := range where {
		t.Run(stage, func(t *testing.T) {
			storage := &fakeStorage{}
			good, _ := chosen(t, storage)
			for _, code := range troubles {
				err := failed("F", code)
				fail(storage, err)
				k, passedOver := chosen(t, storage)
				require.Equal(t, mtls.StrengthTPM, k.Strength(), "%s", err)
				require.ErrorIs(t, passedOver[0].Err, mtls.ErrKeyNotNow)
				require.ErrorContains(t, passedOver[0].Err, err.Error())
			}
			require.Equal(t, []string{"created KeyGuardRSAKey", "created HardwareRSAKey"}, storage.events)
			fail(storage, nil)
			k, _ := chosen(t, storage)
			require.True(t, good.(*key).public.Equal(k.Public()), "the trouble is over")
		})
	}
}

// A dead key, and what is left of one that is gone, is replaced, and so is one that signs wrongly.
func TestDeadKeyIsReplaced(t *testing.T) {
	name := keyGuard.name
	for stage, fail := range map[string]func(*fakeStorage, error){
		"opening": func(s *fakeStorage, err error) { s.openError = map[string]error{name: err} },
		"signing": func(s *fakeStorage, err error) { s.keys[softwareProvider+name].dead = err },
	} {
		for _, code := range deaths {
			err := failed(stage, code)
			if stage == "opening" && is(err, windows.NTE_BAD_KEYSET, windows.NTE_NO_KEY, windows.NTE_NOT_FOUND) {
				continue // there is none, and so none to be replaced
			}
			t.Run(err.Error(), func(t *testing.T) {
				storage := &fakeStorage{}
				_, _ = chosen(t, storage)
				fail(storage, err)
				k, passedOver := chosen(t, storage)
				require.Empty(t, passedOver)
				require.Equal(t, mtls.StrengthKeyGuard, k.Strength())
				require.Equal(t, []string{"created KeyGuardRSAKey", "replaced KeyGuardRSAKey"}, storage.events)
			})
		}
	}
	storage := &fakeStorage{}
	_, _ = chosen(t, storage)
	other, err := storage.create(softwareProvider, "", 0)
	require.NoError(t, err)
	storage.keys[softwareProvider+name].signsAs = other.(*fakeKey)
	_, _ = chosen(t, storage)
	require.Equal(t, "replaced KeyGuardRSAKey", storage.events[1])
}

// A TPM that cannot be asked is passed over with the reason.
func TestTPMThatCannotBeAsked(t *testing.T) {
	storage := &fakeStorage{noIsolation: true, hardwareError: failed("F", windows.RPC_S_SERVER_TOO_BUSY)}
	k, passedOver := chosen(t, storage)
	require.Equal(t, mtls.StrengthSoftware, k.Strength())
	require.ErrorIs(t, passedOver[1].Err, errNoTPM)
	require.ErrorContains(t, passedOver[1].Err, "RPC_S_SERVER_TOO_BUSY")
}

// Processes that find the same key dead replace it once: a second replacement would orphan the certificate of the
// first.
func TestDeadKeyIsReplacedOnce(t *testing.T) {
	storage := &fakeStorage{}
	_, _ = chosen(t, storage)
	storage.reboot()
	results := make(chan mtls.Key)
	for range 8 {
		go func() {
			k, _, err := strongest(context.Background(), storage)
			if err != nil {
				t.Error(err)
			}
			results <- k
		}()
	}
	for range 8 {
		require.NoError(t, (<-results).(*key).Close())
	}
	require.Equal(t, []string{"created KeyGuardRSAKey", "replaced KeyGuardRSAKey"}, storage.events)
}

// A process that hangs while it makes a key holds nobody up for longer than they want to wait.
func TestKeyIsNotWaitedForBeyondTheDeadline(t *testing.T) {
	err := inTurn("KEY_KeyGuardRSAKey", lockWait, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		done := make(chan error) // on another thread: this one has the lock
		go func() {
			_, _, err := strongest(ctx, &fakeStorage{})
			done <- err
		}()
		return <-done
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A key of a size that IMDS refuses is no use.
func TestKeyOfWrongSizeIsRefused(t *testing.T) {
	_, err := software.check(&fakeKey{storage: &fakeStorage{}, private: smallKey(t)})
	require.ErrorContains(t, err, "1024 bits")
}

// The real CNG. As far as Wine has it, that is no isolation, no TPM, and a software key.
func TestKeysOfThisMachine(t *testing.T) {
	k, passedOver := chosen(t, ncrypt{})
	if UnderWine() {
		require.Equal(t, mtls.StrengthSoftware, k.Strength())
		require.Len(t, passedOver, 2)
		require.ErrorIs(t, passedOver[0].Err, errNotIsolated)
		require.ErrorIs(t, passedOver[1].Err, errNoTPM)
	}
	require.Equal(t, keyBits, k.(*key).public.N.BitLen())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Keys{}.Key(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// Errors tell the code in hex, and its name: the text of Windows is in the language of the machine.
func TestStatusErrors(t *testing.T) {
	_, err := ncrypt{}.open(softwareProvider, "azmtls-test-nowhere")
	require.Error(t, err)
	require.True(t, strings.HasPrefix(err.Error(), "NCryptOpenKey: 0x8009"), err.Error())
	require.Contains(t, err.Error(), "(NTE_")
	require.EqualError(t, failed("F", syscall.Errno(windows.NTE_BAD_KEYSET)), "F: 0x80090016 (NTE_BAD_KEYSET)")
	require.Contains(t, failed("F", syscall.Errno(0x8BADF00D)).Error(), "F: 0x8BADF00D (")
	require.ErrorIs(t, failed("F", windows.ERROR_ACCESS_DENIED), windows.ERROR_ACCESS_DENIED)
	require.EqualError(t, failed("F", syscall.Errno(0x80070005)), "F: 0x80070005 (ERROR_ACCESS_DENIED)")
	require.ErrorIs(t, failed("F", syscall.Errno(0x80070005)), windows.ERROR_ACCESS_DENIED)
	require.NoError(t, failed("F", nil))
}
