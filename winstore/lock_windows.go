package winstore

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/windows"
)

// lockWait is how long MSAL waits for the lock of an alias before it goes on without the store.
const lockWait = 300 * time.Millisecond

var errBusy = errors.New("winstore: another process holds the lock")

// withLock runs the action while no other process, or goroutine, does so under one of these names; the first that may be used
// counts. It returns errBusy, without having run the action, when the lock does not come free in time. A holder that
// died leaves the lock to the next.
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

// openMutex opens the first mutex that this process may use, and creates it if need be.
func openMutex(names []string) (windows.Handle, error) {
	var denied error
	for _, name := range names {
		wide, err := windows.UTF16PtrFromString(name)
		if err != nil {
			return 0, fmt.Errorf("winstore: the name of the lock: %w", err)
		}
		mutex, err := windows.CreateMutex(nil, false, wide)
		switch {
		case mutex != 0: // err is ERROR_ALREADY_EXISTS when it was there
			return mutex, nil
		case !is(err, windows.ERROR_ACCESS_DENIED):
			return 0, fmt.Errorf("winstore: opening the lock: %w", failed("CreateMutex", err))
		}
		denied = failed("CreateMutex", err)
	}
	return 0, fmt.Errorf("winstore: opening the lock: %w", denied)
}
