package tpmstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Reachable returns why this process cannot reach the TPM, and what can be done about it; nil if it can. It sends no
// command.
func (k Keys) Reachable() error { return newDevice(k.Device).reachable() }

func (d *device) reachable() error {
	info, err := os.Stat(d.path)
	switch {
	case err != nil:
		return explain(d.path, err)
	case info.Mode().Type() == fs.ModeSocket:
		if err := unix.Faccessat(unix.AT_FDCWD, d.path, unix.W_OK, unix.AT_EACCESS); err != nil {
			return explain(d.path, &fs.PathError{Op: "open", Path: d.path, Err: err})
		}
		return nil
	case info.Mode()&fs.ModeCharDevice == 0:
		return fmt.Errorf("%s is neither a device nor a unix socket", d.path)
	}
	c, err := openCharDevice(d.path)
	if errors.Is(err, unix.EBUSY) {
		return nil // somebody else's turn
	}
	if err != nil {
		return err
	}
	c.close()
	return nil
}

// explain says what can be done about a device that cannot be opened.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf(
			"%w: there is no such TPM; a virtual machine needs a vTPM (Trusted Launch), a container --device %s",
			err,
			path,
		)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: add the user to the group that owns the device (tss)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the unit needs DeviceAllow=%s rw, the container --device %s", err, path, path)
	}
	return err
}
