package imdstest

import (
	"crypto/tls"
	"crypto/x509"
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
	// VMID and VMSSID name the machine. Default: a random GUID and none.
	VMID, VMSSID string
	// TLSVersion is the one version that the token endpoint and the resource speak: tls.VersionTLS12 or tls.VersionTLS13.
	// Default: both.
	TLSVersion uint16
	// CertificateLifetime is how long issued certificates are valid. Negative: they have expired already. Default: 7 days.
	CertificateLifetime time.Duration
	// TokenNotAfter, when not 0, gives issued certificates a token window that ends after this time, which may be negative.
	TokenNotAfter time.Duration
	// EditCertificate, when set, has the last word on the template of each certificate.
	EditCertificate func(*x509.Certificate)
	// TokenLifetime and RefreshIn are the expires_in and refresh_in of tokens, in whole seconds. Default: 1 hour, half of it.
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
	// ResourceHandler serves the requests that the resource has authorised. Default: a JSON account of the caller.
	ResourceHandler http.Handler
	// ResourceAudience, when set, is the audience that a token for the resource must have.
	ResourceAudience string
	// ResourceClientAuth says whether the resource asks for a client certificate; tls.NoClientCert: it never does.
	// One that is presented is verified in any case. Default: tls.RequestClientCert.
	ResourceClientAuth *tls.ClientAuthType
	// Time returns the current time, which is also the Date of IMDS's answers. Default: time.Now.
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
	if o.Time == nil {
		o.Time = time.Now
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
