package imdstest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Options configures a [Server]. The zero value is a machine with a system-assigned identity.
type Options struct {
	// TenantID of the identities. Default: a random GUID.
	TenantID string
	// ClientID of the system-assigned identity. Default: a random GUID.
	ClientID string
	// NoSystemAssigned says that the machine has no system-assigned identity. Where it has one user-assigned identity, a
	// request that names none is for that one; where it has none or several, IMDS answers 400.
	NoSystemAssigned bool
	// UserAssigned are the user-assigned identities of the machine. IMDS answers 400 to a request for another one, which
	// is no Rejection. Nil: whichever a request names is assigned.
	UserAssigned []Identity
	// VMID and VMSSID name the machine. Default: a random GUID and none.
	VMID, VMSSID string
	// TLSVersion is the one version that the token endpoint and the resource speak: tls.VersionTLS12 or tls.VersionTLS13.
	// Default: both.
	TLSVersion uint16
	// CertificateLifetime is how long issued certificates are valid. Negative: they have expired already. Default: 7 days.
	CertificateLifetime time.Duration
	// TokenNotAfter, when not 0, gives issued certificates a token window that ends after this time, which may be
	// negative.
	TokenNotAfter time.Duration
	// EditCertificate, when set, has the last word on the template of each certificate.
	EditCertificate func(*x509.Certificate)
	// TokenLifetime and RefreshIn are the expires_in and refresh_in of tokens, in whole seconds. Default: 1 hour, half of
	// it.
	TokenLifetime, RefreshIn time.Duration
	// RequireAttestation refuses certificate requests without an attestation token.
	RequireAttestation bool
	// ReissueSame makes IMDS answer a request for a key with the latest certificate that the key has for this
	// identity, those of Server.IssueCertificate included, even when it has expired. A request with bypass_cache=true
	// gets a new one. Default: every request gets a new one.
	ReissueSame bool
	// RefuseBypassCache makes IMDS answer 400 to a request with bypass_cache, as one that does not know it. That is
	// no Rejection.
	RefuseBypassCache bool
	// Listener is what IMDS listens on. Default: a free port of 127.0.0.1. The Server closes it.
	Listener net.Listener
	// ResourceHandler serves the requests that the resource has authorised. Default: a JSON account of the caller.
	ResourceHandler http.Handler
	// ResourceAudience, when set, is the audience that a token for the resource must have.
	ResourceAudience string
	// ResourceClientAuth says whether the resource asks for a client certificate; tls.NoClientCert: it never does.
	// One that is presented is verified in any case. Default: tls.RequestClientCert.
	ResourceClientAuth *tls.ClientAuthType
	// Vault makes the resource the front of a key vault, or managed HSM, of this host name, for example
	// my.vault.azure.net. It answers a request without a token with a vault's challenge, demands the header
	// x-ms-tokenboundauth with bound tokens, and refuses as a vault does. [Server.MTLSTransport] finds it under its name.
	// Default: none.
	Vault string
	// Clock is the clock of the Server and of its CredentialOptions. Default: the machine's.
	Clock *Clock
	// Time returns the current time, which is also the Date of IMDS's answers. Default: that of Clock.
	Time func() time.Time
}

func (o Options) withDefaults() Options {
	setDefault(&o.TenantID, uuid.NewString)
	setDefault(&o.ClientID, uuid.NewString)
	setDefault(&o.VMID, uuid.NewString)
	if o.CertificateLifetime == 0 {
		o.CertificateLifetime = 7 * 24 * time.Hour
	}
	if o.TokenLifetime == 0 {
		o.TokenLifetime = time.Hour
	}
	if o.RefreshIn == 0 {
		o.RefreshIn = o.TokenLifetime / 2
	}
	if o.ResourceHandler == nil {
		o.ResourceHandler = http.HandlerFunc(describeCaller)
	}
	if o.ResourceClientAuth == nil {
		o.ResourceClientAuth = new(tls.RequestClientCert)
	}
	if o.Vault != "" {
		setDefault(&o.ResourceAudience, o.vaultResource)
	}
	if o.Time == nil {
		o.Time = o.Clock.internal().Wall
	}
	return o
}

func setDefault(s *string, value func() string) {
	if *s == "" {
		*s = value()
	}
}

// versions returns the lowest and the highest TLS version.
func (o Options) versions() (uint16, uint16) {
	if o.TLSVersion != 0 {
		return o.TLSVersion, o.TLSVersion
	}
	return tls.VersionTLS12, tls.VersionTLS13
}
