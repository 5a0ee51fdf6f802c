package winstore

import (
	"context"
	"fmt"

	"github.com/azmtls/azmtls/mtls"
)

// Choose tells which strength the key would have that Key would return, and why stronger ones would be passed over.
// Nothing is changed: where there is no key, or a dead one, a key without a name is made, which goes with its handle.
func (Keys) Choose(ctx context.Context) (mtls.BindingStrength, []mtls.PassedOver, error) {
	return diagnose(ctx, ncrypt{})
}

func diagnose(ctx context.Context, storage keyStorage) (mtls.BindingStrength, []mtls.PassedOver, error) {
	strength := mtls.StrengthSoftware // of a key in memory, which there always is
	passedOver, err := firstOf(ctx, func(t tier) error {
		err := t.diagnose(storage)
		if err == nil {
			strength = t.strength
		}
		return err
	})
	if err != nil {
		return mtls.StrengthNone, passedOver, err
	}
	return strength, passedOver, nil
}

// diagnose returns why the tier would give no key, nil if it would.
func (t tier) diagnose(storage keyStorage) error {
	k, state, err := t.existing(storage)
	switch {
	case state == keyUsable:
		return k.Close()
	case state == keyBarred:
		return err
	}
	const unnamed = ""
	native, err := storage.create(t.provider, unnamed, t.flags)
	if err != nil {
		return fmt.Errorf("winstore: making a key on trial: %w", err)
	}
	k, err = t.check(native)
	if err != nil {
		return err
	}
	return k.Close()
}
