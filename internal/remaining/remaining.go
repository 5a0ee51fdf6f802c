// Package remaining says whether enough remains of a certificate to keep it beyond its process: the cache writes and
// takes no others, and the stores of both platforms give out no others.
package remaining

import (
	"errors"
	"time"
)

// Least is what must be left of a certificate: a process that finds it in a store should have a day of it (MSAL's
// rule).
const Least = 24 * time.Hour

// Vet returns why a certificate that ends and is usable until then is not worth keeping at that time, nil if it is.
// Whether its key signs is the store's to find out.
func Vet(notAfter, usableUntil, now time.Time) error {
	switch left := notAfter.Sub(now); {
	case left <= 0:
		return errors.New("its certificate has expired")
	case left <= Least:
		return errors.New("no more than 24 hours are left of its certificate")
	case !usableUntil.After(now):
		return errors.New("its token window has ended")
	}
	return nil
}
