package mtls

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/azmtls/azmtls/internal/endpoint"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/hostport"
)

// oidTokenNotAfter marks the certificate extension in which IMDS says until when Entra issues tokens for it.
var oidTokenNotAfter = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 90, 2, 1}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// Binding is a client certificate with its key, the token endpoint it is good for and the client id it speaks for. It
// is immutable once it is in use.
type Binding struct {
	// Certificate has Leaf set, and its PrivateKey is the [Key].
	Certificate tls.Certificate
	// Endpoint is {mtls_authentication_endpoint}/{tenant_id}; the token URL is this + /oauth2/v2.0/token.
	Endpoint string
	// ClientID is the canonical client id of the identity, a GUID.
	ClientID string

	// Issued is the Date of the answer by which IMDS issued the certificate: its clock, not ours. It is zero if the answer
	// had none, and in a binding that was loaded from a store.
	Issued time.Time

	// admitted is set when a Cache takes the binding in; copies share it.
	admitted *admission
}

// NewBinding checks that a certificate is the one asked for and returns it as a binding: the certificate must be for
// this key and name a client id in its CN, and the address of its endpoint be https without userinfo, query or
// fragment; a bare host counts as https, and a trailing slash is left out.
func NewBinding(leaf *x509.Certificate, key Key, address, clientID string) (*Binding, error) {
	if leaf == nil {
		return nil, errors.New("mtls: a binding needs a certificate, got none")
	}
	if key == nil {
		return nil, errors.New("mtls: a binding needs a key, got nil")
	}
	if !sameKey(leaf.PublicKey, key.Public()) {
		return nil, errors.New("mtls: the certificate is for another key than the one in the certificate request")
	}
	if !guid.MatchString(leaf.Subject.CommonName) {
		return nil, errors.New("mtls: the certificate's subject CN is not a client id (a GUID)")
	}
	if !guid.MatchString(clientID) {
		return nil, errors.New("mtls: the client id of a binding must be a GUID")
	}
	authority, err := endpoint.Check(address)
	if err != nil {
		return nil, fmt.Errorf("mtls: the token endpoint %w", err)
	}
	certificate := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	if limited, ok := key.(signatureLimiter); ok {
		certificate.SupportedSignatureAlgorithms = limited.SupportedSignatureAlgorithms()
	}
	return &Binding{Certificate: certificate, Endpoint: authority, ClientID: clientID}, nil
}

// Thumbprint returns the certificate's x5t#S256: the base64url SHA-256 of its DER without padding (RFC 8705, section
// 3.1). It is empty when there is no certificate, or no binding.
func (b *Binding) Thumbprint() string {
	if b == nil {
		return ""
	}
	if b.admitted != nil {
		return b.admitted.thumbprint
	}
	der := b.der()
	if der == nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// MarshalJSON shows no more of the binding than a log may hold, whatever it is a part of: a [Refusal] for example. A
// software key would show its private half otherwise.
func (b *Binding) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Thumbprint string    `json:"thumbprint"`
		Host       string    `json:"host"`
		Until      time.Time `json:"usable_until,omitzero"`
	}{eventlog.Mask(b.Thumbprint()), b.tokenHost(), b.UsableUntil()})
}

func (b *Binding) der() []byte {
	switch {
	case len(b.Certificate.Certificate) > 0:
		return b.Certificate.Certificate[0]
	case b.Certificate.Leaf != nil:
		return b.Certificate.Leaf.Raw
	default:
		return nil
	}
}

// UsableUntil returns when the certificate stops being good for tokens: its NotAfter or the end of its token window,
// whichever comes first. It is the zero time when there is no certificate.
func (b *Binding) UsableUntil() time.Time {
	leaf := b.Certificate.Leaf
	if leaf == nil {
		return time.Time{}
	}
	if end, ok := tokenNotAfter(leaf); ok && end.Before(leaf.NotAfter) {
		return end
	}
	return leaf.NotAfter
}

// Strength returns the strength of the binding's key, StrengthNone if it does not say.
func (b *Binding) Strength() BindingStrength {
	if key, ok := b.Certificate.PrivateKey.(Key); ok {
		return key.Strength()
	}
	return StrengthNone
}

// signsPSS reports whether the key signs RSASSA-PSS, without which there is no TLS 1.3 (RFC 8446, section 4.2.3).
func (b *Binding) signsPSS() bool {
	schemes := b.Certificate.SupportedSignatureAlgorithms
	return len(schemes) == 0 || slices.ContainsFunc(schemes, func(s tls.SignatureScheme) bool {
		return s == tls.PSSWithSHA256 || s == tls.PSSWithSHA384 || s == tls.PSSWithSHA512
	})
}

// vet returns why a binding cannot be used, whoever gave it; nil if it can.
func (b *Binding) vet() error {
	switch {
	case b.der() == nil || b.Certificate.Leaf == nil:
		return errors.New("it has no parsed certificate")
	case b.UsableUntil().Before(b.Certificate.Leaf.NotBefore):
		return errors.New("its certificate ends before it begins")
	}
	signer, ok := b.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("it has no private key that can sign")
	}
	if !sameKey(b.Certificate.Leaf.PublicKey, signer.Public()) {
		return errors.New("its certificate is for another key")
	}
	if _, err := endpoint.Check(b.Endpoint); err != nil {
		return fmt.Errorf("its token endpoint %w", err)
	}
	return nil
}

// tokenHost returns the host of the token endpoint, in the form that hosts are compared in; empty if there is none.
func (b *Binding) tokenHost() string {
	u, err := url.Parse(b.Endpoint)
	if err != nil || u.Host == "" {
		return ""
	}
	return hostport.Canonical(u.Host)
}

func sameKey(certified, held crypto.PublicKey) bool {
	key, ok := certified.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(held)
}

// tokenNotAfter reads the end of the token window: a GeneralizedTime or UTCTime, bare or in a SEQUENCE. A malformed
// value counts as absent, as MSAL has it: NotAfter still bounds the certificate.
func tokenNotAfter(leaf *x509.Certificate) (time.Time, bool) {
	for _, extension := range leaf.Extensions {
		if !extension.Id.Equal(oidTokenNotAfter) {
			continue
		}
		var bare time.Time
		if rest, err := asn1.Unmarshal(extension.Value, &bare); err == nil {
			return bare, len(rest) == 0
		}
		var wrapped struct{ End time.Time }
		rest, err := asn1.Unmarshal(extension.Value, &wrapped)
		return wrapped.End, err == nil && len(rest) == 0
	}
	return time.Time{}, false
}
