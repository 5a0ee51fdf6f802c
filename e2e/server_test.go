package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startServer runs a TLS server until the test ends, and returns when it answers at host.
func startServer(t *testing.T, dir, host string, pool *x509.CertPool, program string, args ...string) *exec.Cmd {
	t.Helper()
	return startServerReading(t, nil, dir, host, pool, program, args...)
}

// startServerReading is startServer with an input for the server, nil for none.
func startServerReading(
	t *testing.T, input *os.File, dir, host string, pool *x509.CertPool, program string, args ...string,
) *exec.Cmd {
	t.Helper()
	logFile, err := os.Create(filepath.Join(dir, "output.log"))
	require.NoError(t, err)
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if input != nil {
		cmd.Stdin = input
	}
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // a server with workers ends them
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
		_ = logFile.Close()
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; {
		select {
		case <-exited:
			output, err := os.ReadFile(logFile.Name())
			require.NoError(t, err)
			t.Fatalf("%s ended at once: %s", program, output)
		case <-tick.C:
		}
		conn, err := tls.Dial("tcp", host, &tls.Config{RootCAs: pool})
		if err == nil {
			_ = conn.Close()
			return cmd
		}
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
			return cmd // it demands a client certificate
		}
		require.True(t, time.Now().Before(deadline), "%s does not answer: %v", program, err)
	}
}

// writePEM writes a certificate as a PEM file.
func writePEM(t *testing.T, file string, certificate *x509.Certificate) {
	t.Helper()
	require.NoError(
		t,
		os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}), 0o600),
	)
}

// selfSigned writes a server certificate for loopback and its key as PEM files.
func selfSigned(t *testing.T, dir string) (certFile, keyFile string, leaf *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "e2e"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"my.vault.azure.net"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	writePEM(t, certFile, leaf)
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	return certFile, keyFile, leaf
}

// poolOf returns a pool of these certificates.
func poolOf(certificates ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool
}

// freePort returns a port of loopback that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
