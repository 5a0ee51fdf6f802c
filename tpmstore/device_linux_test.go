package tpmstore

import (
	"context"
	"crypto"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// driver stands in for the kernel's: a packet is a command, or a response.
func driver(t *testing.T, upstream string) (ours charDevice, theirs int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(pair[1]) })
	if upstream == "" {
		return charDevice{pair[0]}, pair[1]
	}
	tpm, err := net.Dial("unix", upstream)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tpm.Close() })
	require.NoError(t, unix.SetNonblock(pair[1], false))
	go func() {
		command := make([]byte, maxResponse)
		for {
			n, err := unix.Read(pair[1], command)
			if err != nil || n == 0 {
				return
			}
			if _, err := tpm.Write(command[:n]); err != nil {
				return
			}
			response, err := readMessage(tpm)
			if err != nil {
				return
			}
			_, _ = unix.Write(pair[1], response)
		}
	}()
	return charDevice{pair[0]}, pair[1]
}

// A device is spoken to as the kernel wants it: one write, then one read when the answer is there.
func TestCharDevice(t *testing.T) {
	tpm := startTPM(t)
	c, _ := driver(t, tpm.Socket)
	defer c.close()
	s := &session{t.Context(), c}
	w, err := create(s)
	require.NoError(t, err)
	signature, err := w.sign(s, digestOf(crypto.SHA256), padding{crypto.SHA256, true})
	require.NoError(t, err)
	require.NoError(t, padding{crypto.SHA256, true}.verify(w.key, digestOf(crypto.SHA256), signature))
}

// A device that does not answer is waited for as long as the context says, and signals change nothing.
func TestCharDeviceDoesNotAnswer(t *testing.T) {
	c, _ := driver(t, "")
	defer c.close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = syscall.Kill(os.Getpid(), syscall.SIGURG) // as the runtime's own, which ask goroutines to yield
			}
		}
	}()
	begin := time.Now()
	_, err := c.exchange(ctx, make([]byte, headerSize))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 2*time.Second)
}

// go-tpm reads what a TPM answers; where it panics at that, the caller gets an error, and the next one its turn.
func TestAnswerThatPanics(t *testing.T) {
	d := newDevice(startTPM(t).Socket)
	_, err := use(t.Context(), d, func(*session) (any, error) { panic("index out of range") })
	require.ErrorContains(t, err, "an answer of the TPM could not be read: index out of range")
	value, err := use(t.Context(), d, func(*session) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, value)
}

// A TPM that is busy is asked more and more seldom.
func TestBusyTPMIsAskedSeldom(t *testing.T) {
	p := startProxy(t, startTPM(t).Socket)
	p.set(func(p *proxy) { p.answer = refusing(tpm2.TPMCCGetRandom, tpm2.TPMRCRetry, 0) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := dialSocket(ctx, p.Socket)
	require.NoError(t, err)
	defer c.close()
	_, err = tpm2.GetRandom{BytesRequested: 1}.Execute(&session{ctx, c})
	require.ErrorIs(t, err, tpm2.TPMRCRetry)
	require.LessOrEqual(t, len(p.commands()), 1+2+3+4+5, "1, 2, 4 … ms")
}

// A device that takes no command for now is asked again, for as long as the context says.
func TestCharDeviceIsBusy(t *testing.T) {
	c, theirs := driver(t, "")
	defer c.close()
	sent := 0
	for ; ; sent++ {
		if _, err := unix.Write(c.fd, make([]byte, headerSize)); err != nil {
			require.Equal(t, unix.EAGAIN, err)
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.write(ctx, says(0)), context.DeadlineExceeded)

	done := make(chan error, 1)
	go func() { done <- c.write(t.Context(), says(0)) }()
	for range sent {
		_, err := unix.Read(theirs, make([]byte, maxResponse))
		require.NoError(t, err)
	}
	require.NoError(t, <-done)
}

// A socket that does not answer is waited for as long, too.
func TestSocketDoesNotAnswer(t *testing.T) {
	p := startProxy(t, startTPM(t).Socket)
	p.set(func(p *proxy) { p.silence = make(chan struct{}) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c, err := dialSocket(ctx, p.Socket)
	require.NoError(t, err)
	defer c.close()
	begin := time.Now()
	_, err = c.exchange(ctx, says(0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 2*time.Second)
}

// What is no TPM is told so.
func TestWhatIsNoTPM(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for device, want := range map[string]string{
		"/dev/null":                 "EOF",
		"/dev/zero":                 "",
		file:                        "neither a device nor a unix socket",
		dir:                         "neither a device nor a unix socket",
		filepath.Join(dir, "gone"):  "there is no such TPM; a virtual machine needs a vTPM (Trusted Launch), a container --device",
		filepath.Join(file, "gone"): "not a directory",
	} {
		t.Run(filepath.Base(device), func(t *testing.T) {
			k, err := Keys{device, t.TempDir()}.Key(t.Context())
			require.NoError(t, err)
			require.Equal(t, mtls.StrengthSoftware, k.Strength())
			passedOver := k.(softwareKey).PassedOver()
			require.Equal(t, device, passedOver[0].Provider)
			require.ErrorContains(t, passedOver[0].Err, want)
		})
	}
}

// Finding out that there is no TPM, or none for this process, costs next to nothing, and leaves nothing behind.
func TestNoTPMCostsNothing(t *testing.T) {
	keys := Keys{"/dev/nonexistent", t.TempDir()}
	begin := time.Now()
	for range 100 {
		require.ErrorIs(t, keys.Reachable(), fs.ErrNotExist)
		_, err := Store{keys.Folder}.Load(t.Context(), alias)
		require.ErrorIs(t, err, mtls.ErrNotFound)
	}
	require.Less(t, time.Since(begin)/100, 50*time.Millisecond)
	_, err := keys.Key(t.Context())
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(keys.Folder, folderName))
}

// The reader is told what to do.
func TestAdvice(t *testing.T) {
	for code, want := range map[error]string{
		unix.ENOENT: "a container --device /dev/tpmrm0",
		unix.EACCES: "add the user to the group that owns the device (tss)",
		unix.EPERM:  "DeviceAllow=/dev/tpmrm0 rw",
		unix.EIO:    "input/output error",
	} {
		err := explain("/dev/tpmrm0", &fs.PathError{Op: "open", Path: "/dev/tpmrm0", Err: code})
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, code)
	}
}

// A process without permission on the device is told so. Root has permission on everything.
func TestNoPermission(t *testing.T) {
	tpm := startTPM(t)
	require.NoError(t, Keys{Device: tpm.Socket}.Reachable())
	if os.Geteuid() != 0 {
		require.NoError(t, os.Chmod(tpm.Socket, 0))
		require.ErrorContains(t, Keys{Device: tpm.Socket}.Reachable(), "group")
		return
	}
	require.NoError(t, os.Chmod(filepath.Dir(tpm.Socket), 0o755))
	require.NoError(t, os.Chmod(tpm.Socket, 0o660))
	c := start(t, "reach", tpm.Socket)
	require.Contains(t, c.wait(), "permission denied: add the user to the group that owns the device (tss)")
}

// Choose tells what Key would give and changes nothing.
func TestChoose(t *testing.T) {
	tpm := startTPM(t)
	p := startProxy(t, tpm.Socket)
	var chooser mtls.Chooser = Keys{p.Socket, t.TempDir()}
	keys := chooser.(Keys)
	strength, passedOver, err := chooser.Choose(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthTPM, strength)
	require.Empty(t, passedOver)
	require.NoDirExists(t, filepath.Join(keys.Folder, folderName))
	require.Empty(t, handles(t, tpm.Socket, firstTransient))

	k := tpmKeyOf(t, keys)
	p.commands()
	strength, _, err = chooser.Choose(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthTPM, strength)
	require.NotContains(t, p.commands(), tpm2.TPMCCCreate, "there is a key")

	p.set(func(p *proxy) { p.answer = refusing(tpm2.TPMCCLoad, tpm2.TPMRCLockout, 1) })
	strength, passedOver, err = chooser.Choose(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthSoftware, strength)
	require.ErrorIs(t, passedOver[0].Err, tpm2.TPMRCLockout)
	p.set(func(p *proxy) { p.answer = nil })

	require.NoError(t, tpm.Wipe())
	strength, _, err = chooser.Choose(t.Context())
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthTPM, strength, "Key would make one")
	text, err := os.ReadFile(filepath.Join(keys.Folder, folderName, keyFile))
	require.NoError(t, err)
	require.Equal(t, k.wrapped.encode(), text, "the dead key is where it was")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = chooser.Choose(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = keys.Key(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// A TPM that does not answer leaves enough of the time for a key in software.
func TestTPMIsPassedOverInTime(t *testing.T) {
	tpm := startTPM(t)
	p := startProxy(t, tpm.Socket)
	p.set(func(p *proxy) { p.silence = make(chan struct{}) })
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	k, err := Keys{p.Socket, t.TempDir()}.Key(ctx)
	require.NoError(t, err)
	require.Equal(t, mtls.StrengthSoftware, k.Strength())
	require.ErrorContains(t, k.(softwareKey).PassedOver()[0].Err, "waiting for the TPM to answer")
}

// A folder that cannot be used costs no strength: the key lives as long as the process.
func TestKeyWithoutFolder(t *testing.T) {
	tpm := startTPM(t)
	base := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(base, folderName), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(base, folderName), 0o755))
	events := logged(t, "cannot be kept")
	k := tpmKeyOf(t, Keys{tpm.Socket, base})
	require.NoError(t, signs(k))
	require.Len(t, events(), 1)
	require.Contains(t, events()[0], "others may use it (mode 0755)")
	left, err := os.ReadDir(filepath.Join(base, folderName))
	require.NoError(t, err)
	require.Empty(t, left)
}

// A process that makes a key for long holds others up for a while, no longer.
func TestKeyTurnIsHeld(t *testing.T) {
	tpm := startTPM(t)
	folder := t.TempDir()
	first := tpmKeyOf(t, Keys{tpm.Socket, folder})
	lock, err := os.OpenFile(filepath.Join(folder, folderName, keyTurn), os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, withLock(t.Context(), lock, lockWait, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
		defer cancel()
		k, err := Keys{tpm.Socket, folder}.Key(ctx)
		require.NoError(t, err)
		require.Equal(t, mtls.StrengthSoftware, k.Strength(), "the caller has no time to wait for the other")
		f, err := openFolder(folder, false)
		require.NoError(t, err)
		defer f.close()
		ran := false
		require.NoError(t, f.inTurn(t.Context(), 20*time.Millisecond, func() error { ran = true; return nil }))
		require.True(t, ran, "it goes ahead when it has waited long enough")
		return nil
	}))
	require.Equal(t, first.Public(), tpmKeyOf(t, Keys{tpm.Socket, folder}).Public())
}
