package azmtls

import (
	"fmt"

	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/mtls"
)

// Recovery is what recovery did about a failure.
type Recovery int

const (
	// RecoveryNone: nothing; no binding was refused.
	RecoveryNone Recovery = iota
	// RecoveryPaused: nothing was tried; a binding was refused before, and it is too early for the next attempt.
	RecoveryPaused
	// RecoveryKept: the binding that was refused was kept, since too many were evicted of late.
	RecoveryKept
	// RecoveryUnreplaced: the binding that was refused was evicted, and no other could be had.
	RecoveryUnreplaced
	// RecoveryFailed: it was evicted, and the request sent once more with another one, which failed for another reason.
	RecoveryFailed
	// RecoveryRefused: it was evicted, and the request sent once more with another one, which was refused too.
	RecoveryRefused
)

var recoveryTexts = [...]string{
	RecoveryNone:       "none, the binding was not refused",
	RecoveryPaused:     "nothing was tried, it is too early for another binding",
	RecoveryKept:       "the refused binding was kept, since too many were evicted of late",
	RecoveryUnreplaced: "the refused binding was evicted, and no other could be had",
	RecoveryFailed: "the refused binding was evicted and the request sent once more with another one, " +
		"which failed for another reason",
	RecoveryRefused: "the refused binding was evicted and the request sent once more with another one, " +
		"which was refused too",
}

// String says it in words.
func (r Recovery) String() string {
	if r < 0 || int(r) >= len(recoveryTexts) {
		return fmt.Sprintf("Recovery(%d)", int(r))
	}
	return recoveryTexts[r]
}

// recoveryOf returns what recovery did about the error that an exchange ended with.
func recoveryOf(err error, x *exchange) Recovery {
	switch {
	case x == nil:
		return RecoveryNone
	case x.refused == 0 && failure.Is[*mtls.Refusal](err):
		return RecoveryPaused
	case x.refused == 0:
		return RecoveryNone
	case x.refused == 1 && x.kept:
		return RecoveryKept
	case x.refused == 1 && x.resolved <= 1:
		return RecoveryUnreplaced
	case x.refused == 1:
		return RecoveryFailed
	default:
		return RecoveryRefused
	}
}
