package azmtls

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/internal/stage"
	"github.com/azmtls/azmtls/mtls"
	"github.com/azmtls/azmtls/tpmstore"
)

// keySource is where an issuer gets its keys from. Making an RSA key takes longer than everything else, so that those
// in memory, which nobody else will miss, are made ahead: beside the request for metadata, and one to spare after a
// mint, when the token that it was for has come: making a key keeps a processor busy.
type keySource struct {
	provider    mtls.KeyProvider
	minStrength mtls.BindingStrength
	closed      *atomic.Bool // no work in the background any more
	minted      atomic.Bool  // with a key of this source, since the latest one to spare was made
	spare       chan mtls.Key
	reasons     once // why stronger keys were passed over
}

func newKeySource(provider mtls.KeyProvider, minStrength mtls.BindingStrength, closed *atomic.Bool) *keySource {
	return &keySource{provider: provider, minStrength: minStrength, closed: closed, spare: make(chan mtls.Key, 1)}
}

// ahead reports whether keys may be made before they are known to be needed.
func (s *keySource) ahead() bool {
	switch provider := s.provider.(type) {
	case mtls.SoftwareKeys:
		return true
	case tpmstore.Keys: // without its TPM it makes keys in memory
		return s.minStrength <= mtls.StrengthSoftware && provider.Reachable() != nil
	}
	return false
}

// key returns a key that is strong enough.
func (s *keySource) key(ctx context.Context) (mtls.Key, error) {
	key, err := s.spareOrNew(ctx)
	if err == nil {
		s.reasons.log(ctx, passedOver(key))
	}
	return key, err
}

func (s *keySource) spareOrNew(ctx context.Context) (mtls.Key, error) {
	if s.ahead() {
		select {
		case key := <-s.spare:
			return key, nil
		default:
		}
	}
	key, err := flight.Within(ctx, limits.Key, stage.Key, s.provider.Key)
	switch {
	case err != nil:
		return nil, fmt.Errorf("getting a key from the key provider: %w", err)
	case key == nil:
		return nil, errors.New("the key provider returned a nil Key and no error")
	case key.Strength() < s.minStrength:
		return nil, fmt.Errorf(
			"the key of the binding has strength %s where MinBindingStrength demands %s%s; nothing was sent. "+
				"Lower MinBindingStrength, or set a KeyProvider whose keys are stronger",
			key.Strength(),
			s.minStrength,
			bracketed(passedOver(key)),
		)
	}
	return key, nil
}

// prepare makes a key to spare after a mint, in the background. It ends by itself.
func (s *keySource) prepare() {
	if s.closed.Load() || !s.minted.Swap(false) || len(s.spare) > 0 || !s.ahead() {
		return
	}
	go func() {
		if key, err := s.provider.Key(context.Background()); err == nil {
			s.keep(key)
		}
	}()
}

// keep puts a key aside that was made and is not needed now.
func (s *keySource) keep(key mtls.Key) {
	select {
	case s.spare <- key:
	default:
	}
}
