package winstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/mtls"
	"golang.org/x/sys/windows"
)

// Key returns the strongest key that the machine has; why stronger ones were passed over is logged under
// azmtls.EventBinding.
func (Keys) Key(ctx context.Context) (mtls.Key, error) {
	key, passedOver, err := strongest(ctx, ncrypt{})
	for _, p := range passedOver {
		eventlog.Writef(ctx, eventlog.Binding, "no %s key from %q: %v", p.Strength, p.Provider, p.Err)
	}
	return key, err
}

// keyStorage is what the choice of a key needs of CNG. Its other implementation stands in for what Wine, where the
// tests run, does not have: KeyGuard, a TPM, keys that outlive their process.
type keyStorage interface {
	open(provider, name string) (cngKey, error)
	create(provider, name string, flags uint32) (cngKey, error)
	inHardware(provider string) (bool, error)
}

// tier is one place where a key may live.
type tier struct {
	provider, name string
	flags          uint32
	strength       mtls.BindingStrength
}

// The first two names are MSAL.NET's. Its HardwareRSAKey lives in the software provider, though, and so not where ours
// is.
var (
	keyGuard = tier{softwareProvider, "KeyGuardRSAKey", ncryptVirtualIso | ncryptPerBootKey, mtls.StrengthKeyGuard}
	tpm      = tier{platformProvider, "HardwareRSAKey", 0, mtls.StrengthTPM}
	software = tier{softwareProvider, "SoftwareRSAKey", 0, mtls.StrengthSoftware}
)

// strongest returns the strongest key, and why stronger ones were passed over.
func strongest(ctx context.Context, storage keyStorage) (mtls.Key, []mtls.PassedOver, error) {
	var held *key
	passedOver, err := firstOf(ctx, func(t tier) (err error) {
		held, err = t.key(ctx, storage)
		return err
	})
	switch {
	case err != nil:
		return nil, passedOver, err
	case held != nil:
		return held, passedOver, nil
	}
	k, err := mtls.SoftwareKeys{}.Key(ctx)
	return k, passedOver, err
}

// firstOf calls try for one tier after the other, the strongest first, until it fails no more. It returns why it failed
// before. The error says that the time was up.
func firstOf(ctx context.Context, try func(tier) error) (passedOver []mtls.PassedOver, err error) {
	for _, t := range []tier{keyGuard, tpm, software} {
		if err := ctx.Err(); err != nil {
			return passedOver, fmt.Errorf("winstore: looking for a key: %w", err)
		}
		err := try(t)
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			return passedOver, err
		}
		passedOver = append(passedOver, mtls.PassedOver{Provider: t.provider, Strength: t.strength, Err: err})
	}
	return passedOver, nil
}

// keyTurnWait is how long a process waits for another one to make a key, which takes a TPM seconds.
const (
	keyTurnName = "KEY_"
	keyTurnWait = 10 * time.Second
)

// key returns the tier's key, made anew if it is not there or dead. Processes take turns at that, lest one makes a key
// anew that another has just got a certificate for; one that does not get its turn in all that time goes ahead.
func (t tier) key(ctx context.Context, storage keyStorage) (*key, error) {
	wait := keyTurnWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(0, min(wait, time.Until(deadline)))
	}
	var k *key
	obtain := func() (err error) {
		k, err = t.obtain(ctx, storage)
		return err
	}
	err := inTurn(keyTurnName+t.name, wait, obtain)
	switch {
	case !errors.Is(err, errBusy):
		return k, err
	case wait < keyTurnWait:
		return nil, fmt.Errorf("winstore: another process is making key %s: %w", t.name, context.DeadlineExceeded)
	}
	err = obtain()
	return k, err
}

func (t tier) obtain(ctx context.Context, storage keyStorage) (*key, error) {
	flags := t.flags
	k, state, err := t.existing(storage)
	switch state {
	case keyUsable:
		return k, nil
	case keyBarred:
		return nil, err
	case keyDead:
		eventlog.Writef(ctx, eventlog.Recovery, "key %s of %q is dead and made anew: %v", t.name, t.provider, err)
		flags |= ncryptOverwriteKey
	}
	native, err := storage.create(t.provider, t.name, flags)
	if err != nil {
		return nil, fmt.Errorf("winstore: making key %s: %w", t.name, err)
	}
	if errors.Is(t.isolation(native), errNotIsolated) {
		if err := native.remove(); err != nil {
			eventlog.Writef(ctx, eventlog.Binding, "a key %s without isolation could not be removed: %v", t.name, err)
		}
		return nil, errNotIsolated
	}
	if t == keyGuard {
		purge(ctx, t)
	}
	return t.check(native)
}

var (
	errNotIsolated = errors.New(
		"winstore: this machine does not isolate keys by virtualization-based security " +
			"(Credential Guard is off, or this is no Trusted Launch VM)",
	)
	errNoTPM = errors.New("winstore: this machine has no TPM that its provider can use")
	errNoPSS = errors.New(
		"winstore: the provider cannot sign RSASSA-PSS, which IMDS demands of a certificate request",
	)
)

// keyState is what has become of a tier's key.
type keyState int

const (
	keyAbsent keyState = iota // there is none
	keyDead                   // it is there and will never sign again
	keyBarred                 // it, or one in its place, cannot be used, or not now
	keyUsable                 // it has just signed
)

// existing returns the key that is there under the tier's name. The error says why it cannot be used.
func (t tier) existing(storage keyStorage) (*key, keyState, error) {
	if t == tpm {
		if hardware, err := storage.inHardware(t.provider); err != nil {
			return nil, keyBarred, fmt.Errorf("%w: %w", errNoTPM, err)
		} else if !hardware {
			return nil, keyBarred, errNoTPM
		}
	}
	native, err := storage.open(t.provider, t.name)
	if is(
		err,
		windows.NTE_BAD_KEYSET,
		windows.NTE_NOT_FOUND,
		windows.NTE_NO_KEY,
		windows.NTE_NOT_SUPPORTED, // comes from a provider that keeps no keys, as Wine's
	) {
		return nil, keyAbsent, err
	}
	var k *key
	if err == nil {
		k, err = t.check(native)
	}
	switch {
	case err == nil:
		return k, keyUsable, nil
	case dead(err) || errors.Is(err, errNotIsolated):
		return nil, keyDead, err
	}
	return nil, keyBarred, fmt.Errorf("winstore: key %s: %w", t.name, notNow(err))
}

// check takes the handle over and makes a key of it, if it is what the tier promises and IMDS will accept it.
func (t tier) check(native cngKey) (*key, error) {
	if err := t.isolation(native); err != nil {
		native.close()
		return nil, err
	}
	k, err := newKey(native, t.strength, container{provider: t.provider, name: t.name})
	if err != nil {
		return nil, err
	}
	if bits := k.public.N.BitLen(); bits != keyBits {
		err = fmt.Errorf("winstore: the key has %d bits where IMDS demands %d", bits, keyBits)
	} else if !k.pss {
		err = errNoPSS
	}
	if err != nil {
		_ = k.Close()
		return nil, err
	}
	return k, nil
}

// isolation returns what keeps a key from being one of KeyGuard, where the tier promises that.
func (t tier) isolation(native cngKey) error {
	if t != keyGuard {
		return nil
	}
	isolated, err := native.isolated()
	if err == nil && !isolated {
		err = errNotIsolated
	}
	return err
}
