package mtls_test

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

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// alert has the shape of crypto/tls's unexported alert type.
type alert uint8

func (a alert) Error() string { return fmt.Sprintf("tls: alert %d", a) }

func remote(a uint8) error { return &net.OpError{Op: "remote error", Err: alert(a)} }

func reset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", connectionReset)}
}

// TestClassify is the design's table: what counts as evidence against the binding, and what does not.
func TestClassify(t *testing.T) {
	sent := mtls.AttemptInfo{CertificateSent: true}
	lostOnce := mtls.AttemptInfo{CertificateSent: true, Losses: 1}
	lostTwice := mtls.AttemptInfo{CertificateSent: true, Losses: 2}
	reused := mtls.AttemptInfo{CertificateSent: true, Reused: true}
	answered := mtls.AttemptInfo{CertificateSent: true, ResponseStarted: true, Losses: 2}
	type row struct {
		what string
		err  error
		info mtls.AttemptInfo
		want mtls.Failure
	}
	rows := []row{
		{"no failure", nil, sent, mtls.None},

		// It speaks of the binding.
		{"the local signer failed", &mtls.SignerError{Err: errors.New("NTE_BAD_KEYSET")}, sent, mtls.BindingRejected},
		{"invalid_client", errors.New("401"), mtls.AttemptInfo{StatusCode: 401, OAuthError: "invalid_client"}, mtls.BindingRejected},
		{"AADSTS1000901 as invalid_request", errors.New("400"), mtls.AttemptInfo{StatusCode: 400, OAuthError: "invalid_request", AADSTS: []string{"AADSTS1000901"}}, mtls.BindingRejected},
		{"AADSTS500181", errors.New("401"), mtls.AttemptInfo{StatusCode: 401, AADSTS: []string{"AADSTS500181"}}, mtls.BindingRejected},
		{"reset twice in a row", reset(), lostTwice, mtls.BindingRejected},
		{"EOF twice in a row", io.EOF, lostTwice, mtls.BindingRejected},
		{"broken pipe twice in a row", syscall.EPIPE, lostTwice, mtls.BindingRejected},
		{"closed twice in a row", net.ErrClosed, lostTwice, mtls.BindingRejected},

		// It does not.
		{"code matched whole", errors.New("400"), mtls.AttemptInfo{StatusCode: 400, OAuthError: "invalid_request", AADSTS: []string{"AADSTS10009010", "AADSTS5001811"}}, mtls.Other},
		{"single reset", reset(), lostOnce, mtls.ConnectionLost},
		{"single EOF", io.ErrUnexpectedEOF, lostOnce, mtls.ConnectionLost},
		{"reset before the certificate was sent", reset(), mtls.AttemptInfo{Losses: 2}, mtls.ConnectionLost},
		{"reset of a reused connection", reset(), mtls.AttemptInfo{CertificateSent: true, Reused: true, Losses: 2}, mtls.ConnectionLost},
		{"alert on a reused connection", remote(48), reused, mtls.ConnectionLost},
		{"anything on a reused connection", errors.New("http: server closed idle connection"), reused, mtls.ConnectionLost},
		{"certificate alert before ours was sent", remote(40), mtls.AttemptInfo{}, mtls.Other},
		{"alert after the response began", remote(48), answered, mtls.Other},
		{"reset after the response began", reset(), answered, mtls.Other},
		{"AADSTS392196", errors.New("400"), mtls.AttemptInfo{StatusCode: 400, OAuthError: "invalid_request", AADSTS: []string{"AADSTS392196"}}, mtls.TokenBindingUnsupported},
		{"cancelled", context.Canceled, lostTwice, mtls.Canceled},
		{"deadline", context.DeadlineExceeded, lostTwice, mtls.Canceled},
		{"DNS", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, mtls.AttemptInfo{}, mtls.Unreachable},
		{"refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, mtls.AttemptInfo{}, mtls.Unreachable},
		{"dial reset", &net.OpError{Op: "dial", Err: syscall.ECONNRESET}, lostTwice, mtls.Unreachable},
		{"timeout", os.ErrDeadlineExceeded, lostTwice, mtls.Unreachable},
		{"untrusted server", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, mtls.AttemptInfo{}, mtls.ServerUntrusted},
		{"429", errors.New("429"), mtls.AttemptInfo{StatusCode: 429}, mtls.ServerBusy},
		{"500", errors.New("500"), mtls.AttemptInfo{StatusCode: 500}, mtls.ServerBusy},
		{"503", errors.New("503"), mtls.AttemptInfo{StatusCode: 503}, mtls.ServerBusy},
		{"400 for another reason", errors.New("400"), mtls.AttemptInfo{StatusCode: 400, OAuthError: "invalid_scope"}, mtls.Other},
		{"plain HTTP peer", tls.RecordHeaderError{Msg: "no TLS"}, lostTwice, mtls.Other},
		{"text that reads like a signer", errors.New("tls: failed to sign handshake: key lost"), sent, mtls.Other},
		{"remote error without alert", &net.OpError{Op: "remote error"}, sent, mtls.Other},
	}
	for _, a := range []uint8{40, 42, 43, 44, 45, 46, 48, 49, 51, 116} {
		rows = append(rows, row{fmt.Sprintf("certificate alert %d", a), remote(a), sent, mtls.BindingRejected})
	}
	for _, a := range []uint8{10, 20, 47, 50, 70, 71, 80, 86, 90, 109, 112, 120} {
		rows = append(rows, row{fmt.Sprintf("other alert %d", a), remote(a), sent, mtls.Other})
	}
	rows = append(rows, row{"alert of QUIC", tls.AlertError(48), sent, mtls.BindingRejected})
	for _, r := range rows {
		t.Run(r.what, func(t *testing.T) {
			require.Equal(t, r.want, mtls.Classify(r.err, r.info), "raw")
			if r.err != nil {
				wrapped := &url.Error{Op: "Post", URL: "https://host", Err: fmt.Errorf("sending: %w", r.err)}
				require.Equal(t, r.want, mtls.Classify(wrapped, r.info), "wrapped")
			}
		})
	}
}
