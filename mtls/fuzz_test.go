package mtls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/keyvault"
	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/stretchr/testify/require"
)

// What is known of a connection does not depend on how the network cuts the stream into pieces.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("CONNECT x\r\n\x16\x03\x01\x00\x02ab\x14\x03\x03\x00\x01\x01"), uint8(3))
	f.Add(
		[]byte("\x16\x03\x01\x00\x00\x16\x03\x03\x00\x00\x16\x03\x03\x00\x00\x16\x03\x03\x00\x00\x14\x03\x03\x00\x00"),
		uint8(1),
	)
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		if len(stream) < 2 || stream[0] != recordHandshake || stream[1] != 3 {
			return // the beginning is recognised in one piece, as crypto/tls writes it
		}
		var whole, cut records
		whole.follow(stream)
		cut.follow(stream[:2])
		for rest := stream[2:]; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			cut.follow(rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, whole, cut)
		require.False(t, whole.sent && whole.changes == 0)
	})
}

// Whatever the facts are: what the caller caused is never evidence, nor is what happened before our certificate was
// sent, unless the key is dead; what Entra says is none of a resource; and the table always decides.
func FuzzJudge(f *testing.F) {
	f.Add(uint16(0x1ff), uint8(0), uint8(0), uint16(400), "invalid_client", "AADSTS500181")
	f.Add(uint16(6), uint8(3), uint8(2), uint16(0), "", "")
	losses := []error{
		nil,
		io.EOF,
		io.ErrUnexpectedEOF,
		net.ErrClosed,
		reset(),
		remote(42),
		remote(80),
		context.Canceled,
		errors.New("x"),
	}
	f.Fuzz(func(t *testing.T, bits uint16, loss, caused uint8, status uint16, code, aadsts string) {
		bit := func(n int) bool { return bits>>n&1 == 1 }
		facts := facts{
			token: bit(0), reused: bit(1), sent: bit(2), written: bit(3), handshake: bit(4), firstRead: bit(5), began: bit(6),
			probed: bit(7), looked: bit(8), confirmed: bit(9), known: bit(10), asked: bit(11), another: bit(12),
			err: losses[int(loss)%len(losses)], status: int(status),
		}
		switch caused % 4 {
		case 1:
			facts.callers = io.EOF
		case 2:
			facts.signing = errors.New("no key")
		case 3:
			facts.dead = errors.New("no key")
		}
		if facts.token && facts.err == nil {
			facts.oauth = &oauth.Error{StatusCode: facts.status, Code: code, AADSTS: []string{aadsts}}
		}
		v := judge(&facts)
		switch {
		case facts.callers != nil:
			require.Equal(t, noEvidence, v)
		case facts.dead != nil:
			require.Equal(t, keyDead, v)
		case facts.err != nil && !facts.sent:
			require.False(t, v.refuses(), "%v", v)
		case facts.err == nil && facts.signing == nil && facts.status/100 != 4:
			require.Equal(t, accepted, v)
		}
	})
}

// A token window can end the use of a certificate early and never late, whatever stands in the extension.
func FuzzTokenNotAfter(f *testing.F) {
	f.Add([]byte("\x18\x0f20261201000000Z"))
	f.Add([]byte("\x30\x11\x18\x0f20261201000000Z"))
	f.Add([]byte("\x17\x0d261201000000Z"))
	notAfter := time.Date(2026, 12, 8, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value []byte) {
		leaf := &x509.Certificate{NotAfter: notAfter, Extensions: []pkix.Extension{{Id: oidTokenNotAfter, Value: value}}}
		b := &Binding{}
		b.Certificate.Leaf = leaf
		require.False(t, b.UsableUntil().After(notAfter))
	})
}

// Whatever a resource answers: it is a refusal only in the words of one of the two servers that have them, and whoever
// reads the body next gets it whole.
func FuzzAnswer(f *testing.F) {
	f.Add(uint16(400), "text/html", "", []byte("<html><head><title>400 The SSL certificate error</title>"))
	f.Fuzz(func(t *testing.T, status uint16, contentType, asked string, body []byte) {
		req := &http.Request{Header: http.Header{}}
		if asked != "" {
			req.Header.Set(keyvault.Header, asked)
		}
		resp := &http.Response{
			StatusCode: int(status), Header: http.Header{"Content-Type": {contentType}},
			Body: io.NopCloser(bytes.NewReader(body)),
		}
		facts := facts{sent: true}
		facts.read(req, resp)
		after, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.True(t, bytes.Equal(body, after))
		switch facts.said {
		case nginxRefuses:
			require.EqualValues(t, http.StatusBadRequest, status)
			require.Contains(t, string(body), "400 The SSL certificate error")
		case keyVaultRefuses:
			require.EqualValues(t, http.StatusUnauthorized, status)
			require.NotEmpty(t, asked)
		case nothingSaid:
			require.False(t, judge(&facts).refuses())
		}
	})
}

// heldKey is a key of which nothing but its public half matters.
type heldKey struct{ crypto.PublicKey }

func (k heldKey) Public() crypto.PublicKey { return k.PublicKey }

func (heldKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("it does not sign")
}

func (heldKey) Strength() BindingStrength { return StrengthSoftware }

// Whatever certificate comes: a binding is of a client id and of the key that it certifies, never of another; it is not
// used beyond its end; and it is told from others by all of its bytes.
func FuzzCertificate(f *testing.F) {
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(f, err)
	const client = "11111111-2222-3333-4444-555555555555"
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		_, err = NewBinding(leaf, heldKey{&stranger.PublicKey}, "https://h/tenant", client)
		require.Error(t, err)
		b, err := NewBinding(leaf, heldKey{leaf.PublicKey}, "https://h/tenant", client)
		if err != nil {
			return
		}
		require.Regexp(t, guid, leaf.Subject.CommonName)
		require.False(t, b.UsableUntil().After(leaf.NotAfter))
		sum := sha256.Sum256(der)
		require.Equal(t, base64.RawURLEncoding.EncodeToString(sum[:]), b.Thumbprint())
		require.Equal(t, der, b.der())
		if b.vet() == nil {
			require.False(t, b.UsableUntil().Before(leaf.NotBefore))
		}
	})
}
