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
	"github.com/azmtls/azmtls/internal/stage"
	see "github.com/azmtls/azmtls/internal/troubleshooting"
	"github.com/azmtls/azmtls/mtls"
)

// advice says what the reader of an error can do, and where there is more on it. The zero value says nothing.
type advice struct {
	text string
	more see.Anchor
}

// adviceFor returns the advice for an error, the zero value if there is none.
func adviceFor(err error) advice {
	refused, byIMDS := errors.AsType[*imds.Error](err)
	declined, byEntra := errors.AsType[*oauth.Error](err)
	switch {
	case failure.Is[*mtls.Refusal](err):
		return advice{"Check that the identity is still assigned to this machine " +
			"and that its key provider gives working keys.", see.Refused}
	case failure.Is[*tls.CertificateVerificationError](err):
		return adviceForServer(err)
	case byIMDS:
		return adviceForIMDS(refused, imds.IsRefusal(err))
	case byEntra:
		return adviceForEntra(declined)
	case stage.Of(err) == stage.Key: // what it was cut off from is no host: a TPM, say
		return advice{more: see.Keys}
	case isUnreachable(err):
		return advice{"Check the network path to the host, and MTLSTransport.Proxy.", see.TokenEndpoint}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return advice{"The host, or what stands before it, ended the connection without a word: " +
			"check firewalls and proxies on the way.", see.TokenEndpoint}
	}
	return advice{}
}

// adviceForServer is for a server whose certificate is not trusted.
func adviceForServer(err error) advice {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return advice{"Check the clock of this machine: it says " + time.Now().UTC().Format(time.RFC3339) + ".", see.Clock}
	}
	return advice{"If a proxy intercepts TLS, exempt the host from it: it cannot pass a client certificate on. " +
		"A private authority is named in MTLSTransport.TLSClientConfig.RootCAs.", see.TokenEndpoint}
}

func adviceForIMDS(e *imds.Error, refusal bool) advice {
	switch {
	case refusal:
		return advice{"IMDS v2 takes the keys of some machines only, " +
			"today those that KeyGuard keeps and that are attested: see KeyProvider and Attestation. " +
			"ManagedIdentityCredential uses IMDS v1 meanwhile.", see.NotCertified}
	case e.StatusCode == http.StatusBadRequest:
		return advice{"Check that the identity that ID names is assigned to this machine.", see.NoIdentity}
	case e.StatusCode == http.StatusTooManyRequests:
		return advice{"IMDS throttles this machine; ask less often, and share one credential.", see.Throttled}
	case e.StatusCode >= 500, e.StatusCode == http.StatusGone:
		return advice{"IMDS is ill or being updated, which passes by itself.", see.Ill}
	}
	return advice{}
}

func adviceForEntra(e *oauth.Error) advice {
	switch {
	case e.Has("AADSTS700016", "AADSTS7000229") || e.Code == "unauthorized_client":
		return advice{"An identity that was made moments ago takes a while to be known everywhere; " +
			"one that was deleted must be assigned to this machine anew.", see.UnknownIdentity}
	case e.Has("AADSTS500011", "AADSTS70011"):
		return advice{"Check the scope: the tenant has no such resource.", see.UnknownResource}
	case e.Has("AADSTS392196", "AADSTS3921996"):
		return advice{"", see.NoBoundTokens} // the error says what to set
	case e.StatusCode == http.StatusTooManyRequests:
		return advice{"Entra throttles this identity; ask less often, and share one credential.", see.Throttled}
	case e.StatusCode >= 500:
		return advice{"Entra or a proxy on the way is ill, which passes by itself.", see.Ill}
	case e.Claims:
		return advice{"A policy of the tenant asks for more than a managed identity can give: see its Conditional Access.",
			see.Policy}
	}
	return advice{}
}

// moreOn returns the section on why IMDS v2 is not to be had.
func moreOn(e *imds.UnavailableError) see.Anchor {
	switch e.Absence {
	case imds.NoVersion2:
		return see.NoVersion2
	case imds.NoIdentity:
		return see.NoIdentity
	}
	return see.Unreachable
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
