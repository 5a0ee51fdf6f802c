package mtls

import "context"

// Chooser is an optional interface of a [KeyProvider] that has more than one place for keys, for logs, status and
// diagnosis.
type Chooser interface {
	// Choose returns the strength that a key would have if Key was called now, and why stronger ones would be passed over,
	// the strongest first. The error says why there would be none. It is a diagnosis and changes nothing: it makes,
	// replaces and deletes no key that outlives the call, and where there is no key yet it tries whether one could be
	// made.
	Choose(ctx context.Context) (BindingStrength, []PassedOver, error)
}

// PassedOver is a place for keys that was not used, although it was tried before the one that was.
type PassedOver struct {
	// Provider names the place as its platform does.
	Provider string
	// Strength is what its key would have had.
	Strength BindingStrength
	// Err is what was in the way.
	Err error
}
