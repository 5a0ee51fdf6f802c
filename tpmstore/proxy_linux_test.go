package tpmstore

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// proxy stands between a key and its TPM, and answers some commands itself.
type proxy struct {
	Socket string

	mu sync.Mutex
	// answer answers a command, and says so; or returns another command to be sent in its place, nil for the same.
	answer func(code tpm2.TPMCC, command []byte) (message []byte, answered bool)
	// edit changes what the TPM answered.
	edit    func(code tpm2.TPMCC, response []byte) []byte
	chunk   int           // sends responses in pieces of this size
	pieces  time.Duration // and waits so long between them
	hangUp  bool          // ends the connection instead of an answer
	silence chan struct{} // no answer until it is closed
	manages bool          // removes what a connection left in the TPM's memory, as the kernel's resource manager does
	seen    []tpm2.TPMCC
	running int // commands
	most    int // at once
}

// startProxy runs a proxy until the test ends.
func startProxy(t testing.TB, upstream string) *proxy {
	dir, err := os.MkdirTemp("", "tpm")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &proxy{Socket: filepath.Join(dir, "sock")}
	listener, err := net.Listen("unix", p.Socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				p.serve(c, upstream)
				_ = c.Close()
			}()
		}
	}()
	return p
}

// set changes what the proxy does.
func (p *proxy) set(change func(*proxy)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// commands returns those that came since the last call.
func (p *proxy) commands() []tpm2.TPMCC {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

func (p *proxy) serve(client net.Conn, upstream string) {
	tpm, err := net.Dial("unix", upstream)
	for errors.Is(err, unix.EAGAIN) { // swtpm has no room for another who waits
		time.Sleep(time.Millisecond)
		tpm, err = net.Dial("unix", upstream)
	}
	if err != nil {
		return
	}
	defer tpm.Close()
	for {
		command, err := readMessage(client)
		if err != nil || !p.pass(client, tpm, command) {
			break
		}
	}
	p.mu.Lock()
	manages := p.manages
	p.mu.Unlock()
	if manages {
		removeTransients(tpm)
	}
}

// removeTransients removes all keys that are loaded. A connection has swtpm for itself, so that they are its own.
func removeTransients(conn net.Conn) {
	tpm := transport.FromReadWriter(conn)
	found, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapHandles, Property: firstTransient, PropertyCount: 100,
	}.Execute(tpm)
	if err != nil {
		return
	}
	loaded, err := found.CapabilityData.Data.Handles()
	if err != nil {
		return
	}
	for _, handle := range loaded.Handle {
		_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
	}
}

func (p *proxy) pass(client, tpm net.Conn, command []byte) bool {
	code := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	p.mu.Lock()
	p.seen = append(p.seen, code)
	p.running++
	p.most = max(p.most, p.running)
	answer, edit, chunk, pieces, hangUp, silence := p.answer, p.edit, p.chunk, p.pieces, p.hangUp, p.silence
	p.mu.Unlock()
	if silence != nil {
		<-silence
	}
	if hangUp {
		return false
	}
	var response []byte
	done := false
	if answer != nil {
		var replaced []byte
		if replaced, done = answer(code, command); done {
			response = replaced
		} else if replaced != nil {
			command = replaced
		}
	}
	if !done {
		var err error
		if _, err = tpm.Write(command); err == nil {
			response, err = readMessage(tpm)
		}
		if err != nil {
			return false
		}
		if edit != nil {
			response = edit(code, response)
		}
	}
	p.set(func(p *proxy) { p.running-- })
	if chunk == 0 {
		chunk = len(response)
	}
	for len(response) > 0 {
		n := min(chunk, len(response))
		if _, err := client.Write(response[:n]); err != nil {
			return false
		}
		response = response[n:]
		time.Sleep(pieces)
	}
	return true
}

// readMessage reads a command or a response.
func readMessage(c net.Conn) ([]byte, error) {
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	message := append(head, make([]byte, binary.BigEndian.Uint32(head[2:])-headerSize)...)
	_, err := io.ReadFull(c, message[headerSize:])
	return message, err
}

// says returns the response that is nothing but a code.
func says(code tpm2.TPMRC) []byte {
	response := []byte{0x80, 0x01, 0, 0, 0, headerSize, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(response[6:], uint32(code))
	return response
}

// refusing answers a command with a code, as often as times says; 0: always.
func refusing(which tpm2.TPMCC, code tpm2.TPMRC, times int) func(tpm2.TPMCC, []byte) ([]byte, bool) {
	n := 0
	return func(command tpm2.TPMCC, _ []byte) ([]byte, bool) {
		if command != which || times > 0 && n >= times {
			return nil, false
		}
		n++
		return says(code), true
	}
}

// impersonate makes a proxy answer for a TPM that signs RSASSA-PSS with a salt of its own choice: the public key that
// the TPM makes is exchanged for one in software, which then signs.
func impersonate(software mtls.Key, salt int) (
	answer func(tpm2.TPMCC, []byte) ([]byte, bool), edit func(tpm2.TPMCC, []byte) []byte,
) {
	ours := software.Public().(*rsa.PublicKey).N.Bytes()
	var real []byte
	answer = func(code tpm2.TPMCC, command []byte) ([]byte, bool) {
		if code != tpm2.TPMCCSign {
			if real == nil {
				return nil, false
			}
			return bytes.ReplaceAll(command, ours, real), false
		}
		options := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		if salt == 0 {
			options.SaltLength = 1 // in Go 0 says: as large as possible
		}
		signature, err := software.Sign(rand.Reader, probe[:], options)
		if err != nil {
			return says(tpm2.TPMRCFailure), true
		}
		// The size of the parameters, the schemes, the size of the signature and it, and a session without nonce and HMAC.
		body := append([]byte{0, 0, 1, 6, 0, 0x16, 0, 0x0b, 1, 0}, signature...)
		body = append(body, 0, 0, 1, 0, 0)
		response := append([]byte{0x80, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}, body...)
		binary.BigEndian.PutUint32(response[2:], uint32(len(response)))
		return response, true
	}
	edit = func(code tpm2.TPMCC, response []byte) []byte {
		if code != tpm2.TPMCCCreate {
			return response
		}
		private := response[headerSize+4:] // after the size of the parameters
		public := private[2+binary.BigEndian.Uint16(private):]
		end := 2 + binary.BigEndian.Uint16(public)
		real = bytes.Clone(public[end-keyBits/8 : end]) // the modulus is the last field
		return bytes.ReplaceAll(response, real, ours)
	}
	return answer, edit
}
