package tpmstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// charDevice is a TPM behind a device of the kernel. An os.File would not do: a signal ends its write, and deadlines
// are no use.
type charDevice struct{ fd int }

func openCharDevice(path string) (conn, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return charDevice{fd}, nil
		case err != unix.EINTR:
			return nil, explain(path, &fs.PathError{Op: "open", Path: path, Err: err})
		}
	}
}

// close ends a command that is under way, too: the next one that opens the device waits for it.
func (c charDevice) close() { _ = unix.Close(c.fd) }

func (c charDevice) exchange(ctx context.Context, command []byte) ([]byte, error) {
	if err := c.write(ctx, command); err != nil {
		return nil, fmt.Errorf("sending the TPM a command: %w", err)
	}
	if err := c.await(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the TPM to answer: %w", err)
	}
	response := make([]byte, maxResponse)
	for {
		n, err := unix.Read(c.fd, response)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == 0:
			err = io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("reading the TPM's answer: %w", err)
		}
		return response[:n], nil
	}
}

// write sends a whole command at once, as the kernel demands. It waits for one that another process has broken off.
func (c charDevice) write(ctx context.Context, command []byte) error {
	for {
		n, err := unix.Write(c.fd, command)
		switch {
		case err == nil && n != len(command):
			return io.ErrShortWrite
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN):
			return err
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// await waits for the answer. Reading before it is there would be the end of it.
func (c charDevice) await(ctx context.Context) error {
	const look = 20 // milliseconds
	for {
		poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, look)
		switch {
		case err != nil && err != unix.EINTR:
			return err
		case err == nil && n > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}
