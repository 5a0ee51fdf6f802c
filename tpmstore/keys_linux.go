package tpmstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
)

// keyFile is where the key is kept, in our folder.
const keyFile = "key.pem"

// tpmShare is how long the TPM may take to give a key: some take half a minute to make one. A software key takes its
// place then.
const tpmShare = 40 * time.Second

// Key returns a key of the TPM. If that cannot be had it returns a key in memory, which tells why by a method
// PassedOver() []mtls.PassedOver.
func (k Keys) Key(ctx context.Context) (mtls.Key, error) {
	held, err := k.ofTPM(ctx, k.obtain)
	if err == nil {
		return held, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("tpmstore: getting a key: %w", err)
	}
	software, softwareErr := mtls.SoftwareKeys{}.Key(ctx)
	if softwareErr != nil {
		return nil, softwareErr
	}
	return softwareKey{software, k.passedOver(err)}, nil
}

// softwareKey is a key in memory that stands in for one of the TPM.
type softwareKey struct {
	mtls.Key
	passedOver []mtls.PassedOver
}

// PassedOver returns why the TPM gave no key.
func (k softwareKey) PassedOver() []mtls.PassedOver { return k.passedOver }

// Choose tells which strength the key would have that Key would return, and why one of the TPM would be passed over.
// Where there is no key yet, or a dead one, the TPM makes one that nobody keeps.
func (k Keys) Choose(ctx context.Context) (mtls.BindingStrength, []mtls.PassedOver, error) {
	_, err := k.ofTPM(ctx, k.diagnose)
	switch {
	case err == nil:
		return mtls.StrengthTPM, nil, nil
	case ctx.Err() != nil:
		return mtls.StrengthNone, nil, fmt.Errorf("tpmstore: looking for a key: %w", err)
	}
	return mtls.StrengthSoftware, k.passedOver(err), nil
}

func (k Keys) passedOver(err error) []mtls.PassedOver {
	return []mtls.PassedOver{{Provider: newDevice(k.Device).path, Strength: mtls.StrengthTPM, Err: err}}
}

// ofTPM has a key gotten in a share of the time, so that some is left for a software key.
func (k Keys) ofTPM(ctx context.Context, get func(context.Context, *device) (*key, error)) (*key, error) {
	d := newDevice(k.Device)
	if err := d.reachable(); err != nil {
		return nil, err
	}
	share := tpmShare
	if deadline, ok := ctx.Deadline(); ok {
		share = min(share, time.Until(deadline)*3/4)
	}
	ctx, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	return get(ctx, d)
}

// obtain returns the key that is kept, made anew if there is none or it is dead. Processes take turns at that.
func (k Keys) obtain(ctx context.Context, d *device) (*key, error) {
	f, err := openFolder(k.Folder, true)
	if err != nil {
		eventlog.Writef(ctx, eventlog.Binding, "the key of the TPM cannot be kept, it lives as long as this process: %v", err)
		return newKey(ctx, d)
	}
	defer f.close()
	var held *key
	err = f.inTurn(ctx, keyTurnWait, func() (err error) {
		held, err = f.key(ctx, d)
		return err
	})
	return held, err
}

// keyTurn is the file whose lock a process has that makes a key: the folder's own is for what takes milliseconds.
const keyTurn = "key.lock"

// keyTurnWait is how long a process waits for another one to make a key. Then it goes ahead: what it makes is of no
// less use.
const keyTurnWait = 20 * time.Second

// inTurn runs the action while no other process makes a key, or without its turn when that takes too long.
func (f *folder) inTurn(ctx context.Context, wait time.Duration, action func() error) error {
	lock, err := f.root.OpenFile(keyTurn, os.O_RDWR|os.O_CREATE|nonblocking, 0o600)
	if err != nil {
		return action() // the folder cannot be written to, so nobody keeps a key in it
	}
	err = withLock(ctx, lock, wait, action)
	if errors.Is(err, errBusy) {
		return action()
	}
	return err
}

// key returns the key that is kept, or a new one.
func (f *folder) key(ctx context.Context, d *device) (*key, error) {
	k, err := f.kept(ctx, d)
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, errDead):
		eventlog.Writef(ctx, eventlog.Recovery, "the key %s/%s is made anew: %v", f.path, keyFile, err)
	case !errors.Is(err, errNoKey):
		return nil, err
	}
	if k, err = newKey(ctx, d); err != nil {
		return nil, err
	}
	err = f.locked(ctx, lockWait, func() error { return f.write(keyFile, k.wrapped.encode()) })
	if err != nil {
		eventlog.Writef(ctx, eventlog.Binding, "the key of the TPM cannot be kept, it lives as long as this process: %v", err)
	}
	return k, nil
}

var errNoKey = errors.New("no key is kept")

// kept returns the key that is kept. The error is errNoKey, errDead, or any other if the key cannot be used now.
func (f *folder) kept(ctx context.Context, d *device) (*key, error) {
	text, _, err := f.readSettled(keyFile)
	if unfit, ok := errors.AsType[*unfitError](err); ok {
		return nil, fmt.Errorf("%w: the file is not used: %w", errDead, unfit)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoKey
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key's file: %w", err)
	}
	w, err := parseWrapped(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDead, err)
	}
	k := &key{d, w}
	return k, k.prove(ctx)
}

// newKey has the TPM make a key.
func newKey(ctx context.Context, d *device) (*key, error) {
	w, err := use(ctx, d, create)
	if err != nil {
		return nil, verdict(err)
	}
	return &key{d, w}, nil
}

// diagnose is obtain that keeps nothing.
func (k Keys) diagnose(ctx context.Context, d *device) (*key, error) {
	f, err := openFolder(k.Folder, false)
	if err == nil {
		defer f.close()
		held, err := f.kept(ctx, d)
		if err == nil || !errors.Is(err, errNoKey) && !errors.Is(err, errDead) {
			return held, err
		}
	}
	return newKey(ctx, d)
}

var _ mtls.KeyProvider = Keys{}
