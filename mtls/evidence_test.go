package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/stretchr/testify/require"
)

// alertError has the shape of crypto/tls's unexported alert type.
type alertError uint8

func (a alertError) Error() string { return fmt.Sprintf("tls: alert %d", a) }

func remote(a uint8) error { return &net.OpError{Op: "remote error", Err: alertError(a)} }

func reset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", connectionReset)}
}

func entra(status int, code string, aadsts ...string) facts {
	return facts{
		token:  true,
		sent:   true,
		status: status,
		oauth:  &oauth.Error{StatusCode: status, Code: code, AADSTS: aadsts},
	}
}

type judgement struct {
	what  string
	facts facts
	want  verdict
}

func (j judgement) check(t *testing.T) {
	t.Run(j.what, func(t *testing.T) {
		f := j.facts
		require.Equal(t, j.want, judge(&f), "raw")
		if f.err != nil {
			f.err = &url.Error{Op: "Post", URL: "https://host", Err: fmt.Errorf("sending: %w", f.err)}
			require.Equal(t, j.want, judge(&f), "wrapped")
		}
	})
}

// What Entra and resources say in HTTP counts in their own words only, and codes come before invalid_client.
func TestJudgeAnswers(t *testing.T) {
	rows := []judgement{
		{"200", facts{sent: true, status: 200}, accepted},
		{"invalid_client", entra(401, "invalid_client"), refused},
		{"AADSTS1000901 as invalid_request", entra(400, "invalid_request", "AADSTS1000901"), refused},
		{"AADSTS500181", entra(401, "", "AADSTS500181"), refused},
		{"a code that only resembles", entra(400, "invalid_request", "AADSTS5001811"), accepted},
		{"unknown resource binding", entra(400, "invalid_request", "AADSTS392196"), accepted},
		{"unknown tenant binding as invalid_client", entra(401, "invalid_client", "AADSTS3921996"), accepted},
		{"unknown identity as invalid_client", entra(401, "invalid_client", "AADSTS700016"), askMetadata},
		{"unknown identity", entra(400, "invalid_request", "AADSTS7000229"), askMetadata},
		{"unauthorized_client", entra(400, "unauthorized_client"), askMetadata},
		{"invalid_scope", entra(400, "invalid_scope", "AADSTS70011"), accepted},
		{"429 that says invalid_client", entra(429, "invalid_client"), accepted},
		{"503 that says invalid_client", entra(503, "invalid_client"), accepted},
		{"nginx", facts{sent: true, status: 400, said: nginxRefuses}, refused},
		{"Key Vault", facts{sent: true, status: 401, said: keyVaultRefuses}, refused},
		{"400 of a resource", facts{sent: true, status: 400}, accepted},
	}
	same, another := entra(400, "unauthorized_client", "AADSTS700016"), entra(400, "unauthorized_client", "AADSTS700016")
	same.asked, another.asked, another.another = true, true, true
	rows = append(rows, judgement{"unknown, and the metadata names it all the same", same, accepted},
		judgement{"unknown, and the metadata names another", another, disowned})
	for _, code := range badAttestation {
		rows = append(rows, judgement{code, entra(401, "invalid_client", code), attestationRefused})
	}
	for _, row := range rows {
		row.check(t)
	}
}

// timedOut is an error that says that it is a timeout.
type timedOut struct{ error }

func (timedOut) Timeout() bool   { return true }
func (e timedOut) Unwrap() error { return e.error }

// What ended a connection counts if ours was sent on it, and by how it was used.
func TestJudgeConnections(t *testing.T) {
	sent := facts{token: true, sent: true, written: true}
	with := func(f facts, err error, edit ...func(*facts)) facts {
		f.err = err
		for _, e := range edit {
			e(&f)
		}
		return f
	}
	probed := func(f *facts) { f.probed = true }
	looked := func(f *facts) { f.looked = true }
	confirmed := func(f *facts) { f.confirmed = true }
	handshake := func(f *facts) { f.handshake, f.written = true, false }
	first := func(f *facts) { f.firstRead = true }
	resource := func(f *facts) { f.token = false }
	known := func(f *facts) { f.known = true }
	unsent := func(f *facts) { f.sent = false }
	reused := func(f *facts) { f.reused = true }
	began := func(f *facts) { f.began = true }
	rows := []judgement{
		{"a loss", with(sent, reset()), askKey},
		{"a loss, the key is dead", with(sent, reset(), probed, func(f *facts) { f.dead = errors.New("gone") }), keyDead},
		{"a loss, the key signs", with(sent, reset(), probed), askHost},
		{"the first loss", with(sent, io.EOF, probed, looked), lossUnconfirmed},
		{"the second loss", with(sent, syscall.EPIPE, probed, looked, confirmed), lossConfirmed},
		{"a loss in the handshake by a known resource", with(sent, reset(), resource, known, handshake), askKey},
		{"a loss by a known resource", with(sent, reset(), resource, known), onceMore},
		{"a loss by a resource", with(sent, reset(), resource), askKey},
		{"a loss by a known token endpoint", with(sent, reset(), known), askKey},
		{"a loss before ours was sent", with(sent, reset(), unsent, handshake), onceMore},
		{"a loss on a reused connection", with(sent, reset(), reused), onceMore},
		{"a loss after the answer began", with(sent, reset(), began), noEvidence},
		{"certificate_required first thing after the handshake", with(sent, remote(116), first), refused},
		{"certificate_required in a handshake of TLS 1.2", with(sent, remote(116), handshake), noEvidence},
		{"an alert of QUIC's type", with(sent, tls.AlertError(48), first), refused},
		{"an alert before ours was sent", with(sent, remote(48), handshake, unsent), noEvidence},
		{"an alert long after the handshake", with(sent, remote(48)), noEvidence},
		{"an alert in a renegotiation", with(sent, remote(48), reused, func(f *facts) { f.handshake = true }), refused},
		{"an alert on a reused connection", with(sent, remote(48), reused), onceMore},
		{"an alert after the answer began", with(sent, remote(48), first, began), noEvidence},

		{"the key failed", with(facts{}, io.EOF, handshake, func(f *facts) { f.signing = errors.New("gone") }), askKey},
		{"the key failed and signs again", with(facts{}, io.EOF, probed, func(f *facts) { f.signing = io.EOF }), onceMore},
		{
			"the key failed, and again",
			with(facts{}, io.EOF, probed, func(f *facts) { f.signing, f.dead = io.EOF, io.EOF }),
			keyDead,
		},
		{
			"the key is busy",
			with(facts{}, io.EOF, func(f *facts) { f.signing = fmt.Errorf("busy: %w", ErrKeyNotNow) }),
			noEvidence,
		},

		{"evicted meanwhile", facts{evicted: true, err: errEvicted}, refused},
		{"the caller's code", with(sent, io.EOF, confirmed, func(f *facts) { f.callers = io.EOF }), noEvidence},
		{"the dialer", with(sent, &dialError{syscall.ECONNRESET}, probed, looked, confirmed), noEvidence},
		{"DNS", with(facts{}, &dialError{&net.DNSError{Err: "no such host"}}), noEvidence},
		{"timeout", with(sent, os.ErrDeadlineExceeded), noEvidence},
		{
			"untrusted server",
			with(sent, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, handshake),
			noEvidence,
		},
		{
			"a verifier of the caller's that lost its own connection",
			with(sent, &tls.CertificateVerificationError{Err: io.EOF}, probed, looked, confirmed),
			noEvidence,
		},
		{"a timeout over a loss", with(sent, timedOut{io.EOF}, probed, looked, confirmed), noEvidence},
		{"plain HTTP peer", with(sent, tls.RecordHeaderError{Msg: "no TLS"}, handshake), noEvidence},
		{"text that reads like a signer", with(sent, errors.New("tls: failed to sign handshake: key lost")), noEvidence},
		{"remote error without alert", with(sent, &net.OpError{Op: "remote error"}, first), noEvidence},
		{"cancelled", with(sent, context.Canceled, func(f *facts) { f.callers = context.Canceled }), noEvidence},
	}
	for _, loss := range append([]error{io.ErrUnexpectedEOF, net.ErrClosed}, losses...) {
		rows = append(rows, judgement{loss.Error(), with(sent, loss), askKey})
	}
	for _, a := range []uint8{40, 42, 43, 44, 45, 46, 48, 49, 51} {
		rows = append(rows,
			judgement{fmt.Sprintf("alert %d in the handshake", a), with(sent, remote(a), handshake), refused},
			judgement{fmt.Sprintf("alert %d after it", a), with(sent, remote(a), first), refused})
	}
	for _, a := range []uint8{10, 20, 41, 47, 50, 70, 71, 80, 86, 90, 109, 112, 120} {
		rows = append(rows, judgement{fmt.Sprintf("other alert %d", a), with(sent, remote(a), first, handshake), noEvidence})
	}
	for _, row := range rows {
		row.check(t)
	}
}

// A Final refusal is a lost connection for azcore's retry policy, and a Refusal for those who look for one.
func TestFinalRefusalIsRetriable(t *testing.T) {
	refusal := &Refusal{Binding: &Binding{}, Host: "host", Err: fmt.Errorf("reading: %w", io.EOF), Final: true}
	var err error = fmt.Errorf("sending: %w", retriable{refusal})
	var found *Refusal
	require.ErrorAs(t, err, &found)
	require.Same(t, refusal, found)
	require.ErrorIs(t, err, io.EOF)
	require.Contains(t, err.Error(), "refused at host")
	var marked interface {
		error
		NonRetriable()
	}
	require.False(t, errors.As(err, &marked))
	require.True(t, errors.As(error(refusal), &marked))
}
