package azmtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/azmtls/azmtls/mtls"
)

// adviceFor says what the reader of an error can do, where there is something.
func adviceFor(err error) string {
	refused, byIMDS := errors.AsType[*imds.Error](err)
	declined, byEntra := errors.AsType[*oauth.Error](err)
	switch {
	case failure.Is[*mtls.Refusal](err):
		return "Check that the identity is still assigned to this machine and that its key provider gives working keys."
	case failure.Is[*tls.CertificateVerificationError](err):
		return adviceForServer(err)
	case byIMDS:
		return adviceForIMDS(refused, imds.IsRefusal(err))
	case byEntra:
		return adviceForEntra(declined)
	case isUnreachable(err):
		return "Check the network path to the host, and MTLSTransport.Proxy."
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "The host, or what stands before it, ended the connection without a word: check firewalls and proxies on the way."
	}
	return ""
}

// adviceForServer is for a server whose certificate is not trusted.
func adviceForServer(err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "Check the clock of this machine: it says " + time.Now().UTC().Format(time.RFC3339) + "."
	}
	return "If a proxy intercepts TLS, exempt the host from it, " +
		"or trust its authority in MTLSTransport.TLSClientConfig.RootCAs."
}

func adviceForIMDS(e *imds.Error, refusal bool) string {
	switch {
	case refusal:
		return "IMDS v2 takes the keys of some machines only, today those that KeyGuard keeps and that are attested: see " +
			"KeyProvider and Attestation. ManagedIdentityCredential uses IMDS v1 meanwhile."
	case e.StatusCode == http.StatusBadRequest:
		return "Check that the identity that ID names is assigned to this machine."
	case e.StatusCode == http.StatusTooManyRequests:
		return "IMDS throttles this machine; ask less often, and share one credential."
	case e.StatusCode >= 500, e.StatusCode == http.StatusGone:
		return "IMDS is ill or being updated, which passes by itself."
	}
	return ""
}

func adviceForEntra(e *oauth.Error) string {
	switch {
	case e.Has("AADSTS700016", "AADSTS7000229") || e.Code == "unauthorized_client":
		return "An identity that was made moments ago takes a while to be known everywhere; " +
			"one that was deleted must be assigned to this machine anew."
	case e.Has("AADSTS500011", "AADSTS70011"):
		return "Check the scope: the tenant has no such resource."
	case e.StatusCode == http.StatusTooManyRequests:
		return "Entra throttles this identity; ask less often, and share one credential."
	case e.StatusCode >= 500:
		return "Entra or a proxy on the way is ill, which passes by itself."
	case e.Claims:
		return "A policy of the tenant asks for more than a managed identity can give: see its Conditional Access."
	}
	return ""
}

// isUnreachable reports that no connection came about, or no answer in time.
func isUnreachable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return failure.Is[*net.DNSError](err) || (ok && timeout.Timeout())
}
