package azmtls

import (
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/azmtls/azmtls/internal/problem"
	"github.com/azmtls/azmtls/internal/stage"
	see "github.com/azmtls/azmtls/internal/troubleshooting"
)

const (
	// EventAuthentication logs tokens that were obtained, and why some were not.
	EventAuthentication = eventlog.Authentication
	// EventBinding logs the life of bindings: loaded, minted, renewed.
	EventBinding = eventlog.Binding
	// EventRecovery logs recovery: what was refused and why, what was evicted, what was tried again.
	EventRecovery = eventlog.Recovery
)

// ErrTokenBindingUnsupported says that the resource does not support proof-of-possession tokens (AADSTS392196). Set
// TokenType to [TokenTypeAuto] or [TokenTypeBearer] to get bearer tokens for it.
// [ManagedIdentityCredential.GetBoundToken] returns it too while azidentity serves.
var ErrTokenBindingUnsupported = errors.New("the resource does not support proof-of-possession tokens; " +
	"set TokenType to TokenTypeAuto or TokenTypeBearer to get bearer tokens for it")

// AuthenticationError says why there is no token. It unwraps to its cause: the *azcore.ResponseError where a server
// answered, the context's error where the caller gave up, [ErrTokenBindingUnsupported]. errors.As finds an
// *azidentity.AuthenticationFailedError in it too.
type AuthenticationError struct {
	// AADSTS is Entra's code, for example "AADSTS700016"; empty when Entra gave none.
	AADSTS string
	// CorrelationID identifies the requests in the logs of IMDS and Entra; empty when none was made.
	CorrelationID string
	// Stage is where it came about.
	Stage Stage
	// Recovery is what was done about it.
	Recovery Recovery

	err error
}

func newAuthenticationError(err error, x *exchange) *AuthenticationError {
	e := &AuthenticationError{err: err, Stage: Stage(stage.Of(err)), Recovery: recoveryOf(err, x), AADSTS: oauthCode(err)}
	if x != nil {
		e.CorrelationID = x.correlationID
	}
	if failed, ok := errors.AsType[*oauth.Error](err); ok && failed.CorrelationID != "" {
		e.CorrelationID = failed.CorrelationID
	}
	if failed, ok := errors.AsType[*imds.Error](err); ok && failed.CorrelationID != "" {
		e.CorrelationID = failed.CorrelationID
	}
	return e
}

// inputError is the error of a call that cannot be served, whatever is there.
func inputError(err error) error { return newAuthenticationError(stage.At(stage.Input, err), nil) }

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
	text := sentence(credName + ": " + problem.MaskIDs(e.err.Error()))
	if e.Recovery != RecoveryNone {
		text += " " + sentence("Recovery: "+e.Recovery.String())
	}
	advice := adviceFor(e.err)
	if advice.text != "" {
		text += " " + advice.text
	}
	if e.CorrelationID != "" {
		text += " Correlation ID: " + e.CorrelationID
	}
	if advice.more != "" {
		text = linked(text, advice.more)
	}
	return text
}

// linked adds where there is more on what a text says.
func linked(text string, more see.Anchor) string { return sentence(text) + " See " + more.URL() }

// sentence ends a text as a sentence ends.
func sentence(text string) string {
	if strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") || strings.HasSuffix(text, "!") {
		return text
	}
	return text + "."
}

// Unwrap returns the cause.
func (e *AuthenticationError) Unwrap() error { return e.err }

// As finds an *azidentity.AuthenticationFailedError for those who know azidentity's errors, its chain among them: with
// the response of the server that answered, if one did. The response is a copy, bounded and without full identifiers.
func (e *AuthenticationError) As(target any) bool {
	failed, ok := target.(**azidentity.AuthenticationFailedError)
	if !ok {
		return false
	}
	*failed = &azidentity.AuthenticationFailedError{}
	if response, ok := errors.AsType[*azcore.ResponseError](e.err); ok {
		(*failed).RawResponse = response.RawResponse
	}
	return true
}

// NonRetriable marks the error for azcore's retry policy: what can be retried has been.
func (*AuthenticationError) NonRetriable() {}

// explain makes the error of a failed exchange one that tells the caller what happened: credential-unavailable where
// there is no IMDS v2, or where it does not certify what this machine has, unless the caller demanded what can be had
// from it alone.
func explain(err error, x *exchange, demanded bool) error {
	absent, ok := errors.AsType[*imds.UnavailableError](err)
	switch {
	case ok:
		return newUnavailable(absent, linked(credName+": "+problem.MaskIDs(absent.Error()), moreOn(absent)))
	case imds.IsRefusal(err) && !demanded:
		return newUnavailable(err, newAuthenticationError(err, x).Error())
	}
	return newAuthenticationError(err, x)
}

// unavailable is azidentity's credential-unavailable error, with what made the credential so.
type unavailable struct {
	error // azidentity's

	cause error
}

func newUnavailable(cause error, message string) error {
	return &unavailable{azidentity.NewCredentialUnavailableError(message), cause}
}

// Unwrap returns azidentity's error, which its chain looks for, and the cause.
func (e *unavailable) Unwrap() []error { return []error{e.error, e.cause} }

// NonRetriable marks the error for azcore's retry policy.
func (*unavailable) NonRetriable() {}

// neitherError is the error of a call that neither IMDS v2 nor azidentity could serve.
type neitherError struct{ v2, v1 error }

func (e *neitherError) Error() string {
	return fmt.Sprintf("%s: neither IMDS v2 nor azidentity has a token.\n\t%v\n\tazidentity: %s",
		fallbackName, e.v2, problem.MaskIDs(e.v1.Error()))
}

// Unwrap returns both. azidentity's comes first, lest its chain finds an AuthenticationFailedError in v2's.
func (e *neitherError) Unwrap() []error { return []error{e.v1, e.v2} }

// NonRetriable marks the error for azcore's retry policy: what can be retried has been.
func (*neitherError) NonRetriable() {}

// withoutUnavailable returns the error as one after which no chain goes on: whether one does is azidentity's word.
func withoutUnavailable(err error) error {
	if not, ok := errors.AsType[*unavailable](err); ok {
		return newAuthenticationError(not.cause, nil)
	}
	return err
}

// explained reports whether the error is one that explain returned: both kinds are marked for azcore.
func explained(err error) bool {
	_, ok := errors.AsType[interface {
		error
		NonRetriable()
	}](err)
	return ok
}
