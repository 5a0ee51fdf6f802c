package mtls

// Record types of TLS (RFC 5246, section 6.2.1).
const (
	recordChangeCipherSpec = 20
	recordHandshake        = 22
	recordHeaderSize       = 5
)

// records follows the headers of the TLS records that go over a connection in one direction. What they hold may be
// encrypted; that they come does not hide. The zero value is ready.
type records struct {
	begun  bool // TLS has begun; before, there may be the words of a proxy
	header [recordHeaderSize]byte
	have   int // bytes of the header so far
	body   int // bytes of the record that are still to come

	changes    int // ChangeCipherSpec records so far
	handshakes int // handshake records since the last of them
	sent       bool
}

// follow notes what passes. Bytes before the first record of a handshake are passed over.
func (r *records) follow(p []byte) {
	if !r.begun {
		if len(p) < 2 || p[0] != recordHandshake || p[1] != 3 {
			return
		}
		r.begun = true
	}
	for len(p) > 0 {
		if r.body > 0 {
			n := min(r.body, len(p))
			r.body -= n
			p = p[n:]
			continue
		}
		n := copy(r.header[r.have:], p)
		r.have += n
		p = p[n:]
		if r.have == recordHeaderSize {
			r.have = 0
			r.body = int(r.header[3])<<8 | int(r.header[4])
			r.note(r.header[0])
		}
	}
}

func (r *records) note(kind byte) {
	switch kind {
	case recordHandshake:
		r.handshakes++
	case recordChangeCipherSpec:
		r.sent = r.sent || r.handshakes >= r.withCertificate()
		r.changes++
		r.handshakes = 0
	}
}

// withCertificate returns how many handshake records a client writes before its ChangeCipherSpec, in TLS 1.2, when it
// sends a certificate: ClientHello, Certificate, ClientKeyExchange, CertificateVerify, and in a renegotiation the
// Finished of the handshake before. Without one it writes two less; with an empty one, one less.
func (r *records) withCertificate() int {
	if r.changes > 0 {
		return 5
	}
	return 4
}

// idle reports that the latest handshake of TLS 1.2 has ended as far as this side is concerned: its Finished is what
// came last. In TLS 1.3 it is encrypted, and looks like data.
func (r *records) idle() bool { return r.changes > 0 && r.handshakes == 1 }
