package tpmstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/azmtls/azmtls/internal/limits"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"
)

const defaultDevice = "/dev/tpmrm0"

// device is the one way of its keys to a TPM. One sequence of commands runs at a time, on a connection of its own: what
// the resource manager of the kernel knows of a connection goes with it, and a TPM without one takes one connection at
// a time.
type device struct {
	path string
	turn chan struct{}
}

func newDevice(path string) *device {
	if path == "" {
		path = defaultDevice
	}
	return &device{path, make(chan struct{}, 1)}
}

// conn is a connection to a TPM.
type conn interface {
	// exchange sends a command and returns the response to it. After an error the connection is of no use.
	exchange(ctx context.Context, command []byte) ([]byte, error)
	close()
}

// use runs commands and returns their result. What has begun goes on when the caller gives up, for a minute at most:
// commands that were broken off would leave keys in a TPM that has no resource manager.
func use[T any](ctx context.Context, d *device, commands func(*session) (T, error)) (T, error) {
	var none T
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for the TPM, which others use: %w", ctx.Err())
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-d.turn }()
		var r result
		r.err = d.run(context.WithoutCancel(ctx), func(s *session) (err error) {
			r.value, err = commands(s)
			return err
		})
		done <- r
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for the TPM to answer: %w", ctx.Err())
	}
}

// run runs commands on a connection of their own, in a limited time.
func (d *device) run(ctx context.Context, commands func(*session) error) (err error) {
	defer func() {
		if r := recover(); r != nil { // go-tpm reads what a TPM answers, which is not ours to trust
			err = fmt.Errorf("an answer of the TPM could not be read: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, limits.Key)
	defer cancel()
	c, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	return commands(&session{ctx, c})
}

// open opens a connection. It waits while another process has the device for itself.
func (d *device) open(ctx context.Context) (conn, error) {
	const look = 5 * time.Millisecond
	for {
		c, err := d.tryOpen(ctx)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) {
			return c, err
		}
		if pause(ctx, look) != nil {
			return nil, fmt.Errorf("another process has the TPM for itself: %w", err)
		}
	}
}

func (d *device) tryOpen(ctx context.Context) (conn, error) {
	info, err := os.Stat(d.path)
	switch {
	case err != nil:
		return nil, explain(d.path, err)
	case info.Mode().Type() == fs.ModeSocket:
		return dialSocket(ctx, d.path)
	case info.Mode()&fs.ModeCharDevice != 0:
		return openCharDevice(d.path)
	}
	return nil, fmt.Errorf("%s is neither a device nor a unix socket", d.path)
}

// session is a connection on which a sequence of commands runs. It is a transport of go-tpm's.
type session struct {
	ctx context.Context
	conn
}

const maxRetryDelay = 100 * time.Millisecond

// Send sends a command, again as long as the TPM says that it is busy with something else.
func (s *session) Send(command []byte) ([]byte, error) {
	for delay := time.Millisecond; ; delay = min(2*delay, maxRetryDelay) {
		response, err := s.exchange(s.ctx, command)
		if err != nil {
			return nil, err
		}
		if len(response) < headerSize {
			return nil, fmt.Errorf("the TPM answered with %d bytes, less than a header: is it a TPM 2.0?", len(response))
		}
		code := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
		if code != tpm2.TPMRCRetry && code != tpm2.TPMRCYielded && code != tpm2.TPMRCTesting {
			return response, nil
		}
		if pause(s.ctx, delay) != nil {
			return nil, fmt.Errorf("the TPM is busy for good: %w", code)
		}
	}
}

// A response is a header and a body: two bytes of tag, four of the size of both, four of the code.
const headerSize, maxResponse = 10, 4096
