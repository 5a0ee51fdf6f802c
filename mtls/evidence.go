package mtls

import (
	"crypto/tls"
	"errors"
	"net/http"
	"slices"

	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/oauth"
)

// verdict is what an attempt says of the binding that it presented.
type verdict int

const (
	// noEvidence: the attempt ended for a reason that is not the binding's.
	noEvidence verdict = iota
	// accepted: the peer answered, and the answer is no refusal.
	accepted
	// refused: the binding cannot be used any more.
	refused
	// attestationRefused is refused, because the attestation of its key is bad.
	attestationRefused
	// keyDead is refused, because its key signs no more.
	keyDead
	// disowned is refused, because the machine's metadata names another identity.
	disowned
	// lossConfirmed is refused by two lost connections. The peer may have processed the request.
	lossConfirmed
	// lossUnconfirmed: a connection was lost as a refusal would lose it. Another one, some time later, confirms it.
	lossUnconfirmed
	// onceMore: the attempt says nothing; a fresh connection may do better.
	onceMore

	// askKey: it depends on whether the key can sign.
	askKey
	// askHost: it depends on whether the host has lost a connection before.
	askHost
	// askMetadata: it depends on whether the machine's metadata names another identity by now.
	askMetadata
)

// refuses reports that the binding is to be evicted.
func (v verdict) refuses() bool { return v >= refused && v <= lossConfirmed }

// evictsAlways reports that the binding is evicted while the budget is spent, too: it cannot sign, or is another's.
func (v verdict) evictsAlways() bool { return v == keyDead || v == disowned }

// facts is what is known of one attempt: of its connection, its request and its answer, and of no other.
type facts struct {
	token     bool // at the token endpoint of the binding, otherwise at a resource
	reused    bool // the connection had served an earlier request
	sent      bool // our certificate went out on this connection
	written   bool // a part of the request may have been written
	handshake bool // it ended in a handshake, the first one or a renegotiation
	firstRead bool // it ended on the first read after a handshake of TLS 1.3
	began     bool // the first byte of an answer had arrived
	evicted   bool // the binding was evicted before anything was sent

	err     error // how it ended; nil with an answer
	callers error // what the caller's own code failed with
	signing error // what the key failed with

	probed    bool  // the key was asked for a signature since
	dead      error // which failed with this, nil if only at that moment
	looked    bool  // the host's memory was asked
	confirmed bool  // it lost a connection before
	known     bool  // it accepted this binding not long ago
	asked     bool  // the machine's metadata was asked
	another   bool  // it names another identity

	status int
	said   words
	oauth  *oauth.Error // of the token endpoint
}

// words are what a resource says of a certificate in HTTP, in its own words and in their own place.
type words int

const (
	nothingSaid words = iota
	nginxRefuses
	keyVaultRefuses
)

// table decides, from top to bottom: the first row that holds gives the verdict. It is the one place that says what a
// failure means, for the token endpoint and for resources, for TLS and for HTTP.
var table = []struct {
	when    string
	holds   func(*facts) bool
	verdict verdict
}{
	{"the binding was evicted meanwhile", func(f *facts) bool { return f.evicted }, refused},
	{"the caller's own code failed, or its context ended", func(f *facts) bool { return f.callers != nil }, noEvidence},

	{"the key cannot sign at this moment", func(f *facts) bool { return isNotNow(f.signing) }, noEvidence},
	{"the key failed to sign, and again when probed", func(f *facts) bool { return f.dead != nil }, keyDead},
	{"the key failed to sign", func(f *facts) bool { return f.signing != nil && !f.probed }, askKey},
	{"the key failed to sign, but signs when probed", func(f *facts) bool { return f.signing != nil }, onceMore},

	{"Entra binds no tokens here", aadsts("AADSTS392196", "AADSTS3921996"), accepted},
	{"Entra knows no such identity", func(f *facts) bool { return unknownIdentity(f) && !f.asked }, askMetadata},
	{"Entra knows no such identity, and the metadata names another", func(f *facts) bool {
		return unknownIdentity(f) && f.another
	}, disowned},
	{"Entra knows no such identity, which the metadata names all the same", unknownIdentity, accepted},
	{"Entra finds the attestation bad", aadsts(badAttestation...), attestationRefused},
	{"Entra finds the binding stale", aadsts("AADSTS1000901", "AADSTS500181"), refused},
	{"Entra does not know the client by its certificate", oauthError("invalid_client"), refused},
	{"nginx does not take the certificate", func(f *facts) bool { return f.said == nginxRefuses }, refused},
	{
		"Key Vault finds another certificate than the token's",
		func(f *facts) bool { return f.said == keyVaultRefuses },
		refused,
	},
	{"an answer that is no refusal", func(f *facts) bool { return f.err == nil }, accepted},
	{"the answer had begun", func(f *facts) bool { return f.began }, noEvidence},

	{"a certificate alert after ours was sent, in the handshake or first thing after it", func(f *facts) bool {
		return f.sent && (f.handshake || f.firstRead) && isCertificateAlert(f)
	}, refused},
	{
		"an alert ended a connection that had served a request",
		func(f *facts) bool { return f.reused && isAlert(f.err) },
		onceMore,
	},
	{
		"no loss: DNS, dial, proxy, time-out, untrusted server, other alerts",
		func(f *facts) bool { return !isLoss(f.err) },
		noEvidence,
	},

	{"a loss on a reused connection", func(f *facts) bool { return f.reused }, onceMore},
	{"a loss before ours was sent", func(f *facts) bool { return !f.sent }, onceMore},
	{"a loss after the handshake, by a resource that took the binding not long ago", func(f *facts) bool {
		return !f.token && !f.handshake && f.known
	}, onceMore},
	{"a loss after ours was sent", func(f *facts) bool { return !f.probed }, askKey},
	{"a loss after ours was sent, and the key signs", func(f *facts) bool { return !f.looked }, askHost},
	{"a loss after ours was sent, for the second time", func(f *facts) bool { return f.confirmed }, lossConfirmed},
	{"a loss after ours was sent, for the first time", func(f *facts) bool { return true }, lossUnconfirmed},
}

// judge returns what the facts say of the binding.
func judge(f *facts) verdict {
	for _, row := range table {
		if row.holds(f) {
			return row.verdict
		}
	}
	return noEvidence
}

// badAttestation are the codes by which Entra says that the attestation behind a certificate is bad.
var badAttestation = []string{"AADSTS1000610", "AADSTS1000611", "AADSTS1000612", "AADSTS1000613", "AADSTS1000614"}

func unknownIdentity(f *facts) bool {
	return aadsts("AADSTS700016", "AADSTS7000229")(f) || oauthError("unauthorized_client")(f)
}

func aadsts(codes ...string) func(*facts) bool {
	return func(f *facts) bool { return f.definite() && f.oauth.Has(codes...) }
}

func oauthError(code string) func(*facts) bool {
	return func(f *facts) bool { return f.definite() && f.oauth.Code == code }
}

// definite reports that Entra gave an answer of its own, not one of overload or illness.
func (f *facts) definite() bool {
	return f.oauth != nil && f.status/100 == 4 && f.status != http.StatusTooManyRequests &&
		f.status != http.StatusRequestTimeout
}

func isCertificateAlert(f *facts) bool {
	alert, ok := peerAlert(f.err)
	return ok && (slices.Contains(certificateAlerts, alert) || alert == alertCertificateRequired && f.firstRead)
}

func isAlert(err error) bool {
	_, ok := peerAlert(err)
	return ok
}

func isNotNow(err error) bool { return errors.Is(err, ErrKeyNotNow) }

// isLoss reports that the connection ended without a word: reset, broken pipe, closed or at its end.
func isLoss(err error) bool {
	if failure.Is[*dialError](err) || failure.Is[*tls.CertificateVerificationError](err) || isTimeout(err) {
		return false
	}
	return slices.ContainsFunc(losses, func(loss error) bool { return errors.Is(err, loss) })
}

// isTimeout looks at every error of the chain: an outer one, like *url.Error, answers for itself and not for what it
// wraps.
func isTimeout(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() {
			return true
		}
	}
	return false
}
