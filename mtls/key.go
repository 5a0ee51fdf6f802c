package mtls

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
)

// BindingStrength says how well the private key of a binding is protected. The values are MSAL's.
type BindingStrength int

const (
	// StrengthNone is no demand at all.
	StrengthNone BindingStrength = 0
	// StrengthSoftware is a key that the operating system or this process keeps in software.
	StrengthSoftware BindingStrength = 1
	// StrengthTPM is a key that lives in a Trusted Platform Module.
	StrengthTPM BindingStrength = 2
	// StrengthKeyGuard is a key isolated by virtualization-based security (Windows Credential Guard).
	StrengthKeyGuard BindingStrength = 3
)

// String returns the name of the strength, for logs and errors.
func (s BindingStrength) String() string {
	switch s {
	case StrengthNone:
		return "none"
	case StrengthSoftware:
		return "software"
	case StrengthTPM:
		return "TPM"
	case StrengthKeyGuard:
		return "KeyGuard"
	default:
		return fmt.Sprintf("BindingStrength(%d)", int(s))
	}
}

// MarshalText implements encoding.TextMarshaler: JSON has the name.
func (s BindingStrength) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, for the names that String gives.
func (s *BindingStrength) UnmarshalText(text []byte) error {
	for known := StrengthNone; known <= StrengthKeyGuard; known++ {
		if string(text) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("mtls: %q is no strength of a key", text)
}

// ErrKeyNotNow is for the keys of providers: Sign returns an error that wraps it when the key is there and cannot sign
// at this moment, since its device is busy, locked out or being reset. Any other failure, when it comes twice, says
// that the key is dead.
var ErrKeyNotNow = errors.New("mtls: the key cannot sign at this moment")

// Key is the private key of a binding. It signs certificate requests and TLS handshakes and never leaves where it
// lives. Implementations must be safe for concurrent use.
//
// One whose hardware cannot sign everything that an RSA key of its size could must say so by a method
// SupportedSignatureAlgorithms() []tls.SignatureScheme; without RSASSA-PSS among them, connections use TLS 1.2.
type Key interface {
	crypto.Signer
	// Strength says how well the key is protected.
	Strength() BindingStrength
}

// signatureLimiter is a Key that cannot sign everything.
type signatureLimiter interface {
	SupportedSignatureAlgorithms() []tls.SignatureScheme
}

// KeyProvider gives the key for the next binding. It is asked at every mint. The key it returns must be an RSA key of
// 2048 bits that can sign now: a provider that finds its key dead re-creates it. Providers are compared with ==
// to decide which credentials may share a binding, so a pointer is the natural receiver.
type KeyProvider interface {
	Key(ctx context.Context) (Key, error)
}

// keyBits is what IMDS v2 demands of the key in a certificate request.
const keyBits = 2048

// SoftwareKeys is a KeyProvider that makes a new RSA key in the memory of this process for every binding. It is the
// provider that works everywhere, and the weakest.
type SoftwareKeys struct{}

// Key returns a new key of [StrengthSoftware].
func (SoftwareKeys) Key(ctx context.Context) (Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("mtls: generating an RSA key of %d bits: %w", keyBits, err)
	}
	return softwareKey{key}, nil
}

type softwareKey struct{ *rsa.PrivateKey }

func (softwareKey) Strength() BindingStrength { return StrengthSoftware }
