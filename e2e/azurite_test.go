package e2e

import (
	"crypto/x509"
	"net"
	"os"
	"strconv"
	"testing"

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
	certFile, keyFile, own := selfSigned(t, dir)
	port := freePort(t)
	a := &azurite{host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), pool: poolOf(own)}
	startServer(t, dir, a.host, a.pool, "node", main,
		"--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port),
		"--inMemoryPersistence", "--disableTelemetry", "--silent",
		"--cert", certFile, "--key", keyFile,
		"--oauth", "basic", "--skipApiVersionCheck") // the SDK's x-ms-version is newer than the emulator's
	return a
}
