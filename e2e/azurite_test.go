package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// azurite is a running Azurite, the storage emulator, on loopback.
type azurite struct {
	host string // 127.0.0.1:port
	pool *x509.CertPool
}

const account = "devstoreaccount1" // the account that Azurite always has

// startAzurite runs Azurite until the test ends. AZMTLS_AZURITE names its main.js; `make test` installs it.
func startAzurite(t *testing.T) *azurite {
	t.Helper()
	main := os.Getenv("AZMTLS_AZURITE")
	require.NotEmpty(t, main, "AZMTLS_AZURITE must name Azurite's dist/src/blob/main.js: run these tests by `make test`")
	require.FileExists(t, main)
	dir := t.TempDir()
	certFile, keyFile, pool := selfSigned(t, dir)
	port := freePort(t)
	logFile, err := os.Create(filepath.Join(dir, "azurite.log"))
	require.NoError(t, err)
	cmd := exec.Command("node", main,
		"--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port),
		"--inMemoryPersistence", "--disableTelemetry", "--silent",
		"--cert", certFile, "--key", keyFile,
		"--oauth", "basic", "--skipApiVersionCheck") // the SDK's x-ms-version is newer than the emulator's
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	require.NoError(t, cmd.Start())
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		_ = logFile.Close()
	})
	a := &azurite{host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), pool: pool}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; {
		select {
		case <-exited:
			output, err := os.ReadFile(logFile.Name())
			require.NoError(t, err)
			t.Fatalf("Azurite ended at once: %s", output)
		case <-tick.C:
		}
		conn, err := tls.Dial("tcp", a.host, &tls.Config{RootCAs: pool})
		if err == nil {
			_ = conn.Close()
			return a
		}
		require.True(t, time.Now().Before(deadline), "Azurite does not answer: %v", err)
	}
}

// selfSigned writes a server certificate for loopback and its key as PEM files.
func selfSigned(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Azurite"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool = x509.NewCertPool()
	pool.AddCert(leaf)
	return certFile, keyFile, pool
}

// freePort returns a port of loopback that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
