package winstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// hold takes the lock of an alias until its input ends.
func hold(arguments []string) error {
	return withLock(mutexNames(arguments[0]), lockWait, func() error {
		fmt.Println("held")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
}

// abandon dies with the lock in its hands.
func abandon(arguments []string) error {
	return withLock(mutexNames(arguments[0]), lockWait, func() error {
		os.Exit(0)
		return nil
	})
}

// take reports whether the lock of the alias was to be had.
func take(t *testing.T, alias string) bool {
	ran := false
	err := withLock(mutexNames(alias), lockWait, func() error { ran = true; return nil })
	if !errors.Is(err, errBusy) {
		require.NoError(t, err)
	}
	require.Equal(t, err == nil, ran)
	return ran
}

// Two processes take turns, whatever the case in which they write the alias; other aliases are free.
func TestLockBetweenProcesses(t *testing.T) {
	alias := "lock-" + uuid.NewString()
	other := StartChild(t, "hold", alias)
	require.Equal(t, "held", other.Line())
	require.False(t, take(t, alias))
	require.False(t, take(t, " LOCK-"+alias[5:]+" "))
	require.True(t, take(t, alias+"x"))
	other.Wait()
	require.True(t, take(t, alias))
}

// A process that died with the lock does not keep it for ever. The test holds the mutex open: else it would end with
// the process.
func TestLockAbandoned(t *testing.T) {
	alias := uuid.NewString()
	mutex, err := openMutex(mutexNames(alias))
	require.NoError(t, err)
	defer windows.CloseHandle(mutex)
	StartChild(t, "abandon", alias).Wait()
	require.True(t, take(t, alias))
	require.True(t, take(t, alias))
}

// Goroutines exclude each other too, although Windows lets a thread take the same mutex twice.
func TestLockSerializes(t *testing.T) {
	names := mutexNames(uuid.NewString())
	inside, entered := 0, 0
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for {
				err := withLock(names, lockWait, func() error {
					inside++
					entered++
					if inside != 1 {
						t.Errorf("%d at once", inside)
					}
					inside--
					return nil
				})
				if !errors.Is(err, errBusy) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, 20, entered)
}

// Neither an error nor a panic keeps the lock, even while its thread lives on and others have the mutex open.
func TestLockIsReleased(t *testing.T) {
	alias := uuid.NewString()
	mutex, err := openMutex(mutexNames(alias))
	require.NoError(t, err)
	defer windows.CloseHandle(mutex)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	holds := func() {
		other := StartChild(t, "hold", alias)
		require.Equal(t, "held", other.Line())
		other.Wait()
	}
	broken := errors.New("broken")
	require.ErrorIs(t, withLock(mutexNames(alias), lockWait, func() error { return broken }), broken)
	holds()
	require.PanicsWithValue(t, "boom", func() {
		_ = withLock(mutexNames(alias), lockWait, func() error { panic("boom") })
	})
	holds()
}

// Where the machine-wide name is denied, as to an account without SeCreateGlobalPrivilege, the session's is used.
func TestLockFallsBackToSession(t *testing.T) {
	denied := `Global\` + uuid.NewString()
	nobody, err := windows.SecurityDescriptorFromString("D:(D;;GA;;;WD)")
	require.NoError(t, err)
	attributes := &windows.SecurityAttributes{SecurityDescriptor: nobody}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	taken, err := windows.CreateMutex(attributes, true, windows.StringToUTF16Ptr(denied))
	require.NoError(t, err)
	defer windows.CloseHandle(taken)

	own := `Local\` + uuid.NewString()
	ran := false
	require.NoError(t, withLock([]string{denied, own}, lockWait, func() error { ran = true; return nil }))
	require.True(t, ran)
	require.ErrorIs(t, withLock([]string{denied}, lockWait, func() error { return nil }), windows.ERROR_ACCESS_DENIED)
}

// foreign makes a mutex of another user that is free for all, and held for good. Windows lets only few do that; Wine
// everybody.
func foreign(t *testing.T, name string) {
	descriptor, err := windows.SecurityDescriptorFromString("O:S-1-5-21-1-2-3-1001D:(A;;GA;;;WD)")
	require.NoError(t, err)
	attributes := &windows.SecurityAttributes{SecurityDescriptor: descriptor}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	mutex, err := windows.CreateMutex(attributes, false, windows.StringToUTF16Ptr(name))
	if errors.Is(err, windows.ERROR_INVALID_OWNER) {
		t.Skip("this user cannot make objects that are another's")
	}
	require.NotZero(t, mutex, err)
	held, release := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer windows.CloseHandle(mutex)
		_, _ = windows.WaitForSingleObject(mutex, windows.INFINITE)
		close(held)
		<-release
	}()
	<-held
	t.Cleanup(func() { close(release) })
}

// Another user who makes a mutex of our name first, and holds it for ever, holds nobody up.
func TestLockOfAnotherUser(t *testing.T) {
	squatted, own := `Global\`+uuid.NewString(), `Local\`+uuid.NewString()
	foreign(t, squatted)
	ran := 0
	count := func() error { ran++; return nil }
	require.NoError(t, withLock([]string{squatted, own}, lockWait, count))
	require.Equal(t, 1, ran, "the next name serves")
	require.ErrorIs(t, withLock([]string{squatted}, lockWait, count), errForeign)
	require.ErrorContains(t, withLock([]string{squatted}, lockWait, count), "S-1-5-21-1-2-3-1001")
	require.Equal(t, 1, ran)

	name := uuid.NewString()
	names, err := ownNames(name)
	require.NoError(t, err)
	for _, n := range names {
		foreign(t, n)
	}
	require.NoError(t, inTurn(name, lockWait, count))
	require.Equal(t, 2, ran, "what guards nothing of ours is not waited for")
}

// Our own mutexes are one per user, who owns them: two users of a machine never wait for each other. MSAL's keep the
// name that all know.
func TestLockNames(t *testing.T) {
	user, err := currentUser()
	require.NoError(t, err)
	names, err := ownNames("MY")
	require.NoError(t, err)
	require.Equal(t, []string{`Global\AZMTLS_MY_` + user.String(), `Local\AZMTLS_MY_` + user.String()}, names)
	require.Regexp(t, `^S-1-5-\d+(-\d+)+$`, user.String())
	require.Regexp(t, `^Global\\MSAL_MI_P_[0-9a-f]{32}$`, mutexNames("alias")[0])

	mutex, err := openMutex(names)
	require.NoError(t, err)
	defer windows.CloseHandle(mutex)
	descriptor, err := windows.GetSecurityInfo(mutex, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	require.NoError(t, err)
	owner, _, err := descriptor.Owner()
	require.NoError(t, err)
	require.True(t, owner.Equals(user), "%s", owner)
}

// An action that was busy itself is not taken for one that did not get its turn.
func TestTurnRunsOnce(t *testing.T) {
	ran := 0
	require.ErrorIs(t, inTurn(uuid.NewString(), lockWait, func() error { ran++; return errBusy }), errBusy)
	require.Equal(t, 1, ran)
}
