package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
)

// thumbprintOf returns the x5t#S256 of a certificate (RFC 8705).
func thumbprintOf(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// confirmationOf returns the x5t#S256 that a token is bound to, empty if it is bound to none.
func confirmationOf(token string) string {
	var claims struct {
		Confirmation map[string]string `json:"cnf"`
	}
	if json.Unmarshal(payloadOf(token), &claims) != nil {
		return ""
	}
	return claims.Confirmation["x5t#S256"]
}

// payloadOf returns what is in a token, nil if it is none.
func payloadOf(token string) []byte {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	return payload
}

// parseHeader reads a certificate from a header, in which Apache writes its PEM with blanks for line breaks.
func parseHeader(value string) (*x509.Certificate, error) {
	value = strings.ReplaceAll(value, " ", "\n")
	value = strings.ReplaceAll(value, "BEGIN\nCERTIFICATE", "BEGIN CERTIFICATE")
	value = strings.ReplaceAll(value, "END\nCERTIFICATE", "END CERTIFICATE")
	block, _ := pem.Decode([]byte(value))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
