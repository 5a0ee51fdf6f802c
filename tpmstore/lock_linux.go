package tpmstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"golang.org/x/sys/unix"
)

// lockWait is how long a change waits for the folder, as MSAL does for its store on Windows.
const lockWait = 300 * time.Millisecond

var errBusy = errors.New("tpmstore: another process holds the lock")

// locked runs the action while no other process, or goroutine, changes the folder. It returns errBusy, without having
// run the action, when that takes too long. The lock is on the folder itself, so there is no file whose deletion would
// make two holders; it goes with the process that holds it.
func (f *folder) locked(ctx context.Context, wait time.Duration, action func() error) error {
	dir, err := f.root.Open(".")
	if err != nil {
		return fmt.Errorf("tpmstore: opening the lock: %w", err)
	}
	return withLock(ctx, dir, wait, action)
}

// withLock takes the file over.
func withLock(ctx context.Context, file *os.File, wait time.Duration, action func() error) error {
	defer file.Close()
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			// Not by Close alone: a child that is just being started may share the file.
			defer func() { _ = unix.Flock(int(file.Fd()), unix.LOCK_UN) }()
			return action()
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("tpmstore: taking the lock: %w", err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w: waited %s for it", errBusy, wait)
		}
		if err := pause(ctx, rand.N(5*time.Millisecond)); err != nil {
			return err
		}
	}
}

// pause waits, unless the context ends before.
func pause(ctx context.Context, d time.Duration) error { return (*clock.Clock)(nil).Wait(ctx, d) }
