package imds

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/azmtls/azmtls/internal/endpoint"
)

// Metadata is what IMDS says of the machine and the identity.
type Metadata struct {
	ClientID            string `json:"clientId"`
	TenantID            string `json:"tenantId"`
	CuID                CuID   `json:"cuId"`
	AttestationEndpoint string `json:"attestationEndpoint"`
}

// CuID names the compute unit: the virtual machine, its scale set or both.
type CuID struct {
	VMID   string `json:"vmId,omitempty"`
	VMSSID string `json:"vmssId,omitempty"`
}

// JSON returns the compact JSON that a certificate request carries: vmId, then vmssId, absent ones left out.
func (c CuID) JSON() []byte {
	out, _ := json.Marshal(c) // two strings always encode
	return out
}

// Issued is a certificate and what IMDS says of it.
type Issued struct {
	ClientID     string
	TenantID     string
	Certificate  *x509.Certificate
	IdentityType string
	// Endpoint is {mtls_authentication_endpoint}/{tenant_id}.
	Endpoint string
	// Date is the time of IMDS's own clock, zero if the answer had none.
	Date time.Time
}

type issueAnswer struct {
	ClientID     string `json:"client_id"`
	TenantID     string `json:"tenant_id"`
	Certificate  string `json:"certificate"`
	IdentityType string `json:"identity_type"`
	Endpoint     string `json:"mtls_authentication_endpoint"`
}

var (
	guid   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	tenant = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.-]*$`) // safe as a segment of a URL path
)

// check returns why the metadata cannot be used. It makes a URL of the attestation endpoint.
func (m *Metadata) check() error {
	switch {
	case m.ClientID == "":
		return errors.New("clientId is missing")
	case !guid.MatchString(m.ClientID):
		return errors.New("clientId is not a GUID")
	case m.TenantID == "":
		return errors.New("tenantId is missing")
	case !tenant.MatchString(m.TenantID):
		return errors.New("tenantId is not a tenant id")
	case m.CuID == CuID{}:
		return errors.New("cuId has neither vmId nor vmssId")
	case m.AttestationEndpoint == "":
		return errors.New("attestationEndpoint is missing")
	}
	attestation, err := endpoint.Check(m.AttestationEndpoint)
	if err != nil {
		return fmt.Errorf("attestationEndpoint %w", err)
	}
	m.AttestationEndpoint = attestation
	return nil
}

func (a issueAnswer) check() (Issued, error) {
	for _, field := range []struct{ name, value string }{
		{"client_id", a.ClientID}, {"tenant_id", a.TenantID}, {"certificate", a.Certificate},
		{"identity_type", a.IdentityType}, {"mtls_authentication_endpoint", a.Endpoint},
	} {
		if field.value == "" {
			return Issued{}, fmt.Errorf("%s is missing", field.name)
		}
	}
	if !guid.MatchString(a.ClientID) {
		return Issued{}, errors.New("client_id is not a GUID")
	}
	if !tenant.MatchString(a.TenantID) {
		return Issued{}, errors.New("tenant_id is not a tenant id")
	}
	authority, err := endpoint.Check(a.Endpoint)
	if err != nil {
		return Issued{}, fmt.Errorf("mtls_authentication_endpoint %w", err)
	}
	der, err := base64.StdEncoding.DecodeString(a.Certificate)
	if err != nil {
		return Issued{}, fmt.Errorf("certificate is not base64: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Issued{}, fmt.Errorf("certificate is not the DER of one: %w", err)
	}
	return Issued{
		ClientID:     a.ClientID,
		TenantID:     a.TenantID,
		Certificate:  leaf,
		IdentityType: a.IdentityType,
		Endpoint:     authority + "/" + a.TenantID,
	}, nil
}
