package winstore

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/azmtls/azmtls/internal/endpoint"
	"github.com/azmtls/azmtls/internal/flight"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/mtls"
	"github.com/golang-jwt/jwt/v5"
)

// attestationMargin is what must be left of an attestation token: the certificate request that carries it may be sent
// several times.
const attestationMargin = 5 * time.Minute

// attestor is what a KeyGuardAttestation works with.
type attestor struct {
	now     func() time.Time // nil: the real clock
	flights flight.Group[attested, string]

	mu      sync.Mutex
	library *attestationLibrary // nil until it was loaded
	tokens  map[attested]attestationToken
}

// attested is what a token is for: a service, and a public key.
type attested struct {
	endpoint string
	key      [sha256.Size]byte
}

type attestationToken struct {
	jwt     string
	expires time.Time
}

// Attest returns the attestation service's JWT for a KeyGuard key of [Keys]: the one it has, if that is good for five
// more minutes and a fresh one is not asked for. Callers who want the same one share a call. For a key of another
// strength, and when the library is not installed, gives no token or one that is not good for that long, there is an
// error.
func (a *KeyGuardAttestation) Attest(ctx context.Context, request mtls.AttestationRequest) (string, error) {
	k, ok := request.Key.(*key)
	if !ok {
		return "", fmt.Errorf(
			"winstore: KeyGuardAttestation attests KeyGuard keys of winstore.Keys, not %T; "+
				"winstore.Keys{}.Choose tells what there is",
			request.Key,
		)
	}
	if k.strength != mtls.StrengthKeyGuard {
		return "", fmt.Errorf(
			"winstore: KeyGuardAttestation attests KeyGuard keys; this one is of strength %s, "+
				"and winstore.Keys{}.Choose tells why",
			k.strength,
		)
	}
	service, err := endpoint.Check(request.Endpoint)
	if err != nil {
		return "", fmt.Errorf("winstore: the attestation endpoint that IMDS named %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return "", err
	}
	what := attested{service, sha256.Sum256(public)}
	if jwt, ok := a.cached(what); ok && !request.Fresh {
		return jwt, nil
	}
	token, err := a.flights.Do(ctx, what, limits.Attestation, func(context.Context) (string, error) {
		if jwt, ok := a.cached(what); ok && !request.Fresh {
			return jwt, nil
		}
		return a.attest(what, k, request.ClientID)
	})
	if err != nil && err == ctx.Err() {
		return "", fmt.Errorf("winstore: waiting for the attestation: %w", err)
	}
	return token, err
}

func (a *KeyGuardAttestation) attest(what attested, k *key, clientID string) (token string, err error) {
	library, err := a.load()
	if err != nil {
		return "", err
	}
	err = k.use(func(native nativeKey) error {
		handle, ok := native.(*ncryptKey)
		if !ok {
			return errors.New("winstore: the key is none of winstore.Keys")
		}
		token, err = library.attest(what.endpoint, handle.handle, clientID)
		return err
	})
	if err != nil {
		return "", err
	}
	claims := jwt.RegisteredClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil { // it is IMDS that verifies it
		return "", errors.New("winstore: " + attestationDLL + " returned something that is no JWT")
	}
	if claims.ExpiresAt == nil {
		return token, nil
	}
	kept, now := attestationToken{token, claims.ExpiresAt.Time}, a.time()
	if !kept.fresh(now) {
		return "", fmt.Errorf(
			"winstore: the JWT that %s returned expires at %s, in less than %s; this machine's clock says %s, is it right?",
			attestationDLL, stamp(kept.expires), attestationMargin, stamp(now),
		)
	}
	a.keep(what, kept)
	return token, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// load returns the library, which stays loaded. One that could not be loaded is looked for again by the next call.
func (a *KeyGuardAttestation) load() (*attestationLibrary, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.library != nil {
		return a.library, nil
	}
	library, err := loadAttestation(a.Library)
	if err != nil {
		return nil, fmt.Errorf("winstore: KeyGuard keys cannot be attested: %w", err)
	}
	a.library = library
	return library, nil
}

func (a *KeyGuardAttestation) cached(what attested) (jwt string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	token, ok := a.tokens[what]
	return token.jwt, ok && token.fresh(a.time())
}

// keep caches a token. Those that have expired go: keys are made anew, and theirs never come again.
func (a *KeyGuardAttestation) keep(what attested, token attestationToken) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.time()
	for old, t := range a.tokens {
		if !t.fresh(now) {
			delete(a.tokens, old)
		}
	}
	if a.tokens == nil {
		a.tokens = map[attested]attestationToken{}
	}
	a.tokens[what] = token
}

func (t attestationToken) fresh(now time.Time) bool { return t.expires.Sub(now) > attestationMargin }

func (a *KeyGuardAttestation) time() time.Time {
	if a.now != nil {
		return a.now()
	}
	return time.Now()
}

var _ mtls.AttestationProvider = (*KeyGuardAttestation)(nil)
