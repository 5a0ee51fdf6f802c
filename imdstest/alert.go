package imdstest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

const (
	recordAlert       = 21
	recordApplication = 23
	levelWarning      = 1
	levelFatal        = 2

	alertCloseNotify        = 0
	alertBadCertificate     = 42
	alertCertificateExpired = 45
	alertUnknownCA          = 48
)

// clearAlert returns the function that writes an alert in the clear: before the connection has any keys.
func clearAlert(conn *wireConn) func(level, number uint8) error {
	return func(level, number uint8) error {
		_, err := conn.TCPConn.Write([]byte{recordAlert, 3, 3, 0, 2, level, number})
		return err
	}
}

// protectedAlert returns the function that writes an alert of any number at the moment when the server has seen the
// client certificate. crypto/tls sends only the alerts of its own choice, so the record is written past it. At that
// moment a TLS 1.2 server still writes in the clear; a TLS 1.3 server has just switched to its application traffic
// keys (RFC 8446, section 7.3), and has written no record with them, since there are no session tickets.
func protectedAlert(conn *wireConn, state tls.ConnectionState, secrets *keyLog) func(level, number uint8) error {
	if state.Version != tls.VersionTLS13 {
		return clearAlert(conn)
	}
	return func(level, number uint8) error {
		record, err := sealAlert(state.CipherSuite, secrets.get("SERVER_TRAFFIC_SECRET_0"), level, number)
		if err != nil {
			return err
		}
		_, err = conn.TCPConn.Write(record)
		return err
	}
}

// sealAlert returns the first record that a TLS 1.3 server protects with this traffic secret, with the alert in it.
func sealAlert(suite uint16, secret []byte, level, number uint8) ([]byte, error) {
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
	// GODEBUG=fips140=only allows AES-GCM with nonces of one's own in crypto/tls only. This one is TLS's.
	var record []byte
	fips140.WithoutEnforcement(func() {
		var aead cipher.AEAD
		if aead, err = newAEAD(key); err == nil {
			inner := []byte{level, number, recordAlert}
			header := []byte{recordApplication, 3, 3, 0, byte(len(inner) + aead.Overhead())}
			record = aead.Seal(header, nonce, inner, header)
		}
	})
	return record, err
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
