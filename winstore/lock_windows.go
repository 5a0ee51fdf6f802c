package winstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/azmtls/azmtls/internal/eventlog"
	"golang.org/x/sys/windows"
)

// lockWait is how long MSAL waits for the lock of an alias before it goes on without the store.
const lockWait = 300 * time.Millisecond

var errBusy = errors.New("winstore: another process holds the lock")

// withLock runs the action while no other process, or goroutine, does so under one of these names; the first that may
// be used counts, and those that another user made do not. It returns errBusy, without having run the action, when the
// lock does not come free in time. A holder that died leaves the lock to the next.
func withLock(names []string, wait time.Duration, action func() error) error {
	runtime.LockOSThread() // a mutex belongs to a thread
	defer runtime.UnlockOSThread()
	mutex, err := openMutex(names)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(mutex)
	switch event, err := windows.WaitForSingleObject(mutex, uint32(wait.Milliseconds())); {
	case event == uint32(windows.WAIT_TIMEOUT):
		return fmt.Errorf("%w: waited %s for it", errBusy, wait)
	case event != windows.WAIT_OBJECT_0 && event != windows.WAIT_ABANDONED:
		return fmt.Errorf("winstore: waiting for the lock: %w", failed("WaitForSingleObject", err))
	}
	defer windows.ReleaseMutex(mutex)
	return action()
}

// inTurn runs the action while no other process of this user is in its turn of that name. It returns errBusy, without
// having run the action, when its turn does not come in time. Where there is no mutex to be had, it goes ahead: one of
// another user guards nothing of this one's.
func inTurn(name string, wait time.Duration, action func() error) error {
	ran := false
	names, err := ownNames(name)
	if err == nil {
		err = withLock(names, wait, func() error { ran = true; return action() })
	}
	if ran || errors.Is(err, errBusy) {
		return err
	}
	eventlog.Writef(context.Background(), eventlog.Binding, "%s is not waited for: %v", name, err)
	return action()
}

// ownNames returns the names of a mutex that no other program uses. It guards what is one user's, and is one per user.
func ownNames(name string) ([]string, error) {
	user, err := currentUser()
	if err != nil {
		return nil, err
	}
	return scoped("AZMTLS_" + name + "_" + user.String()), nil
}

// openMutex opens the first mutex that this process may use and that nobody else made, and creates it if need be.
func openMutex(names []string) (windows.Handle, error) {
	user, err := currentUser()
	if err != nil {
		return 0, err
	}
	attributes, err := ownedBy(user)
	if err != nil {
		return 0, err
	}
	var refused error
	for _, name := range names {
		wide, err := windows.UTF16PtrFromString(name)
		if err != nil {
			return 0, fmt.Errorf("winstore: the name of the lock: %w", err)
		}
		mutex, err := windows.CreateMutex(attributes, false, wide)
		switch {
		case mutex != 0: // err is ERROR_ALREADY_EXISTS when it was there
			if refused = vetOwner(mutex, user); refused == nil {
				return mutex, nil
			}
			_ = windows.CloseHandle(mutex)
		case is(err, windows.ERROR_ACCESS_DENIED):
			refused = failed("CreateMutex", err)
		default:
			return 0, fmt.Errorf("winstore: opening the lock: %w", failed("CreateMutex", err))
		}
	}
	return 0, fmt.Errorf("winstore: opening the lock: %w", refused)
}

func currentUser() (*windows.SID, error) {
	token, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("winstore: finding out who the user is: %w", failed("GetTokenInformation", err))
	}
	return token.User.Sid, nil
}

// ownedBy has an object be the user's, who may use it whether elevated or not. By default it would belong to the
// administrators if one of them makes it, and be denied to the same user without their rights.
func ownedBy(user *windows.SID) (*windows.SecurityAttributes, error) {
	sddl := fmt.Sprintf("O:%[1]sD:P(A;;GA;;;%[1]s)(A;;GA;;;SY)(A;;GA;;;BA)", user)
	descriptor, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return nil, failed("ConvertStringSecurityDescriptorToSecurityDescriptor", err)
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: descriptor}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	return attributes, nil
}

// errForeign says that somebody else made the mutex, who may hold it for as long as it pleases them.
var errForeign = errors.New("another user owns the mutex")

// vetOwner returns errForeign unless the mutex is the user's, or of those who can do everything.
func vetOwner(mutex windows.Handle, user *windows.SID) error {
	const what = windows.OWNER_SECURITY_INFORMATION
	descriptor, err := windows.GetSecurityInfo(mutex, windows.SE_KERNEL_OBJECT, what)
	if err != nil {
		return failed("GetSecurityInfo", err)
	}
	owner, _, err := descriptor.Owner()
	if err != nil {
		return failed("GetSecurityDescriptorOwner", err)
	}
	if owner == nil || !owner.Equals(user) &&
		!owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) && !owner.IsWellKnown(windows.WinLocalSystemSid) {
		return fmt.Errorf("%w: %s", errForeign, owner)
	}
	return nil
}
