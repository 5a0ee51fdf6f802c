package imdstest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

const (
	recordAlert       = 21
	recordApplication = 23
	levelFatal        = 2

	alertBadCertificate     = 42
	alertCertificateExpired = 45
	alertUnknownCA          = 48
)

// sendAlert sends a fatal alert of any number at the moment when the server has seen the client certificate, and ends the
// connection. crypto/tls sends only the alerts of its own choice, so the record is written past it. At that moment a TLS 1.2
// server still writes in the clear; a TLS 1.3 server has just switched to its application traffic keys (RFC 8446, section
// 7.3), and has written no record with them, since there are no session tickets.
func (s *Server) sendAlert(conn net.Conn, state tls.ConnectionState, secrets *keyLog, number uint8) error {
	record := []byte{recordAlert, 3, 3, 0, 2, levelFatal, number}
	if state.Version == tls.VersionTLS13 {
		sealed, err := sealAlert(state.CipherSuite, secrets.get("SERVER_TRAFFIC_SECRET_0"), number)
		if err != nil {
			closeConn(conn, true)
			return err
		}
		record = sealed
	}
	wire, ok := conn.(*wireConn)
	if !ok {
		return errBroken
	}
	if _, err := wire.TCPConn.Write(record); err != nil {
		return err
	}
	wire.taken.Store(true)
	s.running.Go(func() { linger(wire.TCPConn) })
	return errBroken
}

// lingering is how long a peer may take to read an alert.
const lingering = 2 * time.Second

// linger reads what the peer still sends, so that closing does not reset the connection and lose the alert.
func linger(conn *net.TCPConn) {
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(lingering))
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}

// sealAlert returns the first record that a TLS 1.3 server protects with this traffic secret, with the alert in it.
func sealAlert(suite uint16, secret []byte, number uint8) ([]byte, error) {
	hash, keySize := sha256.New, 16
	newAEAD := func(key []byte) (cipher.AEAD, error) {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		hash, keySize = sha512.New384, 32
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		newAEAD, keySize = chacha20poly1305.New, 32
	default:
		return nil, fmt.Errorf("imdstest: no alert in cipher suite %s", tls.CipherSuiteName(suite))
	}
	key, err := expandLabel(hash, secret, "key", keySize)
	if err != nil {
		return nil, err
	}
	nonce, err := expandLabel(hash, secret, "iv", 12) // sequence number 0 leaves it as it is
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	inner := []byte{levelFatal, number, recordAlert}
	header := []byte{recordApplication, 3, 3, 0, byte(len(inner) + aead.Overhead())}
	return aead.Seal(header, nonce, inner, header), nil
}

// expandLabel is HKDF-Expand-Label with an empty context (RFC 8446, section 7.1).
func expandLabel(hash func() hash.Hash, secret []byte, label string, length int) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint16(uint16(length))
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("tls13 " + label)) })
	b.AddUint8(0)
	info, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return hkdf.Expand(hash, secret, string(info), length)
}

// keyLog keeps the secrets of one connection, which crypto/tls writes in the NSS key log format.
type keyLog struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (l *keyLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}

func (l *keyLog) get(label string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.lines.Bytes()) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == label {
			secret, _ := hex.DecodeString(string(fields[2]))
			return secret
		}
	}
	return nil
}
