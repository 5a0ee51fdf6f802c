package azmtls

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/internal/entra"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/mtls"
)

const (
	// EventAuthentication logs tokens that were obtained, and why some were not.
	EventAuthentication log.Event = "azmtls.Authentication"
	// EventBinding logs the life of bindings: loaded, minted, saved, rotated.
	EventBinding = mtls.EventBinding
	// EventRecovery logs recovery: what was rejected and why, what was evicted, what was tried again.
	EventRecovery = mtls.EventRecovery
)

// ErrTokenBindingUnsupported says that the resource does not support proof-of-possession tokens (AADSTS392196). Set TokenType to
// [TokenTypeAuto] or [TokenTypeBearer] to get bearer tokens for it.
var ErrTokenBindingUnsupported = errors.New("the resource does not support proof-of-possession tokens; set TokenType to TokenTypeAuto or TokenTypeBearer to get bearer tokens for it")

// AuthenticationError says why there is no token. It unwraps to its cause: the *azcore.ResponseError where a server answered,
// the context's error where the caller gave up, [ErrTokenBindingUnsupported].
type AuthenticationError struct {
	// AADSTS is Entra's code, for example "AADSTS700016"; empty when Entra gave none.
	AADSTS string
	// CorrelationID identifies the request in Entra's logs; empty when Entra gave none.
	CorrelationID string
	// Recovery says what was done about it.
	Recovery string

	err error
}

func newAuthenticationError(err error, x *exchange) *AuthenticationError {
	e := &AuthenticationError{err: err, Recovery: recoveryOf(err, x)}
	if failure, ok := errors.AsType[*entra.Error](err); ok {
		e.CorrelationID = failure.CorrelationID
		if len(failure.AADSTS) > 0 {
			e.AADSTS = failure.AADSTS[0]
		}
	}
	return e
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
func (c *ImdsV2MtlsCredential) explain(err error, x *exchange) error {
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

// recoveryOf says what recovery did about a failure.
func recoveryOf(err error, x *exchange) string {
	backoff, delayed := errors.AsType[*mtls.BackoffError](err)
	switch {
	case delayed && x != nil && x.rejected > 0:
		return fmt.Sprintf("the rejected binding was evicted; %d fresh ones were refused in a row, so no other was tried", backoff.Refusals)
	case delayed:
		return fmt.Sprintf("nothing was tried: %d fresh bindings were refused in a row, the next mint is allowed at %s", backoff.Refusals, backoff.Until.UTC().Format("15:04:05 MST"))
	case x == nil || x.rejected == 0:
		return "none, the binding was not rejected"
	case x.rejected == 1 && x.presented <= 1:
		return "the rejected binding was evicted, and no fresh one could be had"
	case x.rejected == 1:
		return "the rejected binding was evicted and the request sent once more with a fresh one, which failed for another reason"
	default:
		return "the rejected binding was evicted and the request sent once more with a fresh one, which was rejected and evicted too"
	}
}

// adviceFor says what the reader can do, where there is something.
func adviceFor(err error) string {
	if _, rejected := errors.AsType[*mtls.BindingRejectedError](err); rejected {
		return "Check that the identity is still assigned to this machine and that its key provider gives working keys."
	}
	switch mtls.Classify(err, mtls.AttemptInfo{}) {
	case mtls.ServerUntrusted:
		return "If a proxy intercepts TLS, exempt the token endpoint from it, or trust its authority in MTLSTransport.TLSClientConfig.RootCAs."
	case mtls.Unreachable:
		return "Check the network path to the host, and MTLSTransport.Proxy."
	default:
		return ""
	}
}

var guid = regexp.MustCompile(`([0-9a-fA-F]{8})(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)

// maskIDs shortens the identifiers of clients and tenants in a text that a server wrote.
func maskIDs(text string) string { return guid.ReplaceAllString(text, "${1}…") }
