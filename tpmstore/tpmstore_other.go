//go:build !linux

package tpmstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/azmtls/azmtls/mtls"
)

var errUnsupported = fmt.Errorf(
	"tpmstore: keys in a TPM and their store cannot be had on %s, only on Linux: %w",
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

// Reachable returns an error that is [errors.ErrUnsupported].
func (Keys) Reachable() error { return errUnsupported }
