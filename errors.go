package azmtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/azmtls/azmtls/mtls"
)

const (
	// EventAuthentication logs tokens that were obtained, and why some were not.
	EventAuthentication = eventlog.Authentication
	// EventBinding logs the life of bindings: loaded, minted, saved, rotated.
	EventBinding = eventlog.Binding
	// EventRecovery logs recovery: what was refused and why, what was evicted, what was tried again.
	EventRecovery = eventlog.Recovery
)

// ErrTokenBindingUnsupported says that the resource does not support proof-of-possession tokens (AADSTS392196). Set TokenType to
// [TokenTypeAuto] or [TokenTypeBearer] to get bearer tokens for it.
var ErrTokenBindingUnsupported = errors.New("the resource does not support proof-of-possession tokens; " +
	"set TokenType to TokenTypeAuto or TokenTypeBearer to get bearer tokens for it")

// AuthenticationError says why there is no token. It unwraps to its cause: the *azcore.ResponseError where a server answered,
// the context's error where the caller gave up, [ErrTokenBindingUnsupported].
type AuthenticationError struct {
	// AADSTS is Entra's code, for example "AADSTS700016"; empty when Entra gave none.
	AADSTS string
	// CorrelationID identifies the request in Entra's logs; empty when Entra gave none.
	CorrelationID string
	// Recovery is what was done about it.
	Recovery Recovery

	err error
}

func newAuthenticationError(err error, x *exchange) *AuthenticationError {
	e := &AuthenticationError{err: err, Recovery: recoveryOf(err, x), AADSTS: oauthCode(err)}
	if failed, ok := errors.AsType[*oauth.Error](err); ok {
		e.CorrelationID = failed.CorrelationID
	}
	return e
}

// oauthCode returns the first of Entra's codes in an error, empty if there is none.
func oauthCode(err error) string {
	if failed, ok := errors.AsType[*oauth.Error](err); ok && len(failed.AADSTS) > 0 {
		return failed.AADSTS[0]
	}
	return ""
}

// Error implements the error interface. The text is not contractual and holds no token, key or full identifier.
func (e *AuthenticationError) Error() string {
	if e.err == nil { // not one of ours
		return credName + ": authentication failed"
	}
	text := fmt.Sprintf("%s: %s. Recovery: %s.", credName, strings.TrimSuffix(maskIDs(e.err.Error()), "."), e.Recovery)
	if advice := adviceFor(e.err); advice != "" {
		text += " " + advice
	}
	if e.CorrelationID != "" {
		text += " Correlation ID: " + e.CorrelationID
	}
	return text
}

// Unwrap returns the cause.
func (e *AuthenticationError) Unwrap() error { return e.err }

// NonRetriable marks the error for azcore's retry policy: what can be retried has been.
func (*AuthenticationError) NonRetriable() {}

// explain makes the error of a failed exchange one that tells the caller what happened.
func explain(err error, x *exchange) error {
	if unavailable, ok := errors.AsType[*imds.UnavailableError](err); ok {
		return azidentity.NewCredentialUnavailableError(fmt.Sprintf("%s: %v", credName, unavailable))
	}
	return newAuthenticationError(err, x)
}

// explained reports whether the error is one that explain returned: both kinds are marked for azcore.
func explained(err error) bool {
	_, ok := errors.AsType[interface {
		error
		NonRetriable()
	}](err)
	return ok
}

// adviceFor says what the reader can do, where there is something.
func adviceFor(err error) string {
	switch {
	case failure.Is[*mtls.Refusal](err):
		return "Check that the identity is still assigned to this machine and that its key provider gives working keys."
	case failure.Is[*tls.CertificateVerificationError](err):
		return "If a proxy intercepts TLS, exempt the token endpoint from it, " +
			"or trust its authority in MTLSTransport.TLSClientConfig.RootCAs."
	case isUnreachable(err):
		return "Check the network path to the host, and MTLSTransport.Proxy."
	default:
		return ""
	}
}

// isUnreachable reports that no connection came about, or no answer in time.
func isUnreachable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return failure.Is[*net.DNSError](err) || (ok && timeout.Timeout())
}

var guid = regexp.MustCompile(`([0-9a-fA-F]{8})(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)

// maskIDs shortens the identifiers of clients and tenants in a text that a server wrote.
func maskIDs(text string) string { return guid.ReplaceAllString(text, "${1}…") }
