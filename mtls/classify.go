package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
)

// AttemptInfo is what is known of an attempt beside its error. The zero value is an attempt that got nowhere.
type AttemptInfo struct {
	// Reused: the connection had served an earlier request.
	Reused bool
	// CertificateSent: the server asked for our certificate on this connection, and got it.
	CertificateSent bool
	// ResponseStarted: the first byte of the response had arrived.
	ResponseStarted bool
	// Losses counts the fresh connections in a row, this one included, that were lost after our certificate was sent.
	Losses int
	// StatusCode is the status of the HTTP response, 0 without one.
	StatusCode int
	// OAuthError is the "error" of an Entra response, for example "invalid_client".
	OAuthError string
	// AADSTS holds the codes of an Entra response, for example "AADSTS1000901".
	AADSTS []string
}

// confirmedLosses is how many fresh connections in a row must be lost to count as evidence. Proxies, draining load balancers
// and restarting servers lose one; IMDS limits how often it issues.
const confirmedLosses = 2

// failures is the decision, from top to bottom: the first row that holds names the failure.
var failures = []struct {
	when    string
	holds   func(error, AttemptInfo) bool
	failure Failure
}{
	{"nothing failed", func(err error, _ AttemptInfo) bool { return err == nil }, None},

	{"the local signer failed", func(err error, _ AttemptInfo) bool { return isA[*SignerError](err) }, BindingRejected},
	{"the context was cancelled or timed out", func(err error, _ AttemptInfo) bool {
		return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}, Canceled},

	{"Entra does not bind tokens for the resource", aadsts("AADSTS392196"), TokenBindingUnsupported},
	{"Entra does not know the client any more", func(_ error, a AttemptInfo) bool { return a.OAuthError == "invalid_client" }, BindingRejected},
	{"Entra finds the binding stale", aadsts("AADSTS1000901", "AADSTS500181"), BindingRejected},
	{"the server throttles or is ill", func(_ error, a AttemptInfo) bool {
		return a.StatusCode == http.StatusTooManyRequests || a.StatusCode >= 500
	}, ServerBusy},
	{"a response arrived, in full or in part", func(_ error, a AttemptInfo) bool { return a.StatusCode != 0 || a.ResponseStarted }, Other},

	{"the server's certificate is not trusted", func(err error, _ AttemptInfo) bool { return isA[*tls.CertificateVerificationError](err) }, ServerUntrusted},
	{"a dial or name look-up failed", func(err error, _ AttemptInfo) bool { return isDialError(err) }, Unreachable},
	{"no answer came in time", func(err error, _ AttemptInfo) bool { return isTimeout(err) }, Unreachable},

	{"any failure of a reused connection", func(_ error, a AttemptInfo) bool { return a.Reused }, ConnectionLost},
	{"a certificate alert after ours was sent", func(err error, a AttemptInfo) bool {
		alert, ok := peerAlert(err)
		return ok && a.CertificateSent && slices.Contains(certificateAlerts, alert)
	}, BindingRejected},
	{"a loss after our certificate was sent, confirmed by another", func(err error, a AttemptInfo) bool {
		return isLoss(err) && a.CertificateSent && a.Losses >= confirmedLosses
	}, BindingRejected},
	{"a loss", func(err error, _ AttemptInfo) bool { return isLoss(err) }, ConnectionLost},
}

// Classify says what a failed attempt means for the binding that it used. It treats raw and wrapped errors alike, and looks at
// types and codes, never at the text of an error.
func Classify(err error, info AttemptInfo) Failure {
	for _, row := range failures {
		if row.holds(err, info) {
			return row.failure
		}
	}
	return Other
}

// aadsts matches codes whole: AADSTS5001811 is not AADSTS500181.
func aadsts(codes ...string) func(error, AttemptInfo) bool {
	return func(_ error, a AttemptInfo) bool {
		return slices.ContainsFunc(a.AADSTS, func(code string) bool { return slices.Contains(codes, code) })
	}
}

func isDialError(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	return isA[*net.DNSError](err)
}

// isTimeout looks at every error of the chain: an outer one, like *url.Error, answers for itself and not for what it wraps.
func isTimeout(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() {
			return true
		}
	}
	return false
}
