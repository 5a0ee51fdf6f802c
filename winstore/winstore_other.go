//go:build !windows

package winstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/azmtls/azmtls/mtls"
)

var errUnsupported = fmt.Errorf(
	"winstore: certificate store and keys of Windows cannot be had on %s: %w",
	runtime.GOOS,
	errors.ErrUnsupported,
)

// Load returns an error that is [errors.ErrUnsupported].
func (Store) Load(context.Context, string) (*mtls.Binding, error) { return nil, errUnsupported }

// Save returns an error that is [errors.ErrUnsupported].
func (Store) Save(context.Context, string, *mtls.Binding) error { return errUnsupported }

// DeleteAll returns an error that is [errors.ErrUnsupported].
func (Store) DeleteAll(context.Context, string) error { return errUnsupported }

// List returns an error that is [errors.ErrUnsupported].
func (Store) List(context.Context) ([]mtls.Stored, error) { return nil, errUnsupported }

// Key returns an error that is [errors.ErrUnsupported].
func (Keys) Key(context.Context) (mtls.Key, error) { return nil, errUnsupported }

// Choose returns an error that is [errors.ErrUnsupported].
func (Keys) Choose(context.Context) (mtls.BindingStrength, []mtls.PassedOver, error) {
	return mtls.StrengthNone, nil, errUnsupported
}

type attestor struct{}

// Attest returns an error that is [errors.ErrUnsupported].
func (attestor) Attest(context.Context, mtls.AttestationRequest) (string, error) {
	return "", errUnsupported
}
