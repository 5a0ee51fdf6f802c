package tpmstore

import (
	"errors"
	"fmt"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
)

// errDead marks the error of a key that will never sign again: the TPM was cleared, or the key's file is damaged.
var errDead = errors.New("the key is dead")

// verdict marks why a key cannot be used: what is not known to be its end is for now only.
func verdict(err error) error {
	switch {
	case err == nil, errors.Is(err, errDead), errors.Is(err, errUnusable):
		return err
	}
	return fmt.Errorf("%w: %w", mtls.ErrKeyNotNow, err)
}

// verdictOfLoad marks what a TPM answered when it was to load a key below its own parent. The other answers that it has
// for a key that is good are for now only: TPM 2.0 Library, part 3, section 12.2.
func verdictOfLoad(err error, w wrapped) error {
	if err == nil {
		return nil
	}
	for _, damaged := range []tpm2.TPMRC{
		tpm2.TPMRCIntegrity,
		tpm2.TPMRCSize,
		tpm2.TPMRCInsufficient,
		tpm2.TPMRCCommandSize,
	} {
		if errors.Is(err, damaged) && w.parentName != nil {
			return fmt.Errorf("%w: what was kept of it is damaged: %w", errDead, err)
		}
	}
	return fmt.Errorf("loading the key: %w", err)
}
