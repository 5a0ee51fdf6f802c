package tpmstore

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// OpenSSL's tpm2 provider signs, and requests certificates, with our key file as it is; and its own key file is one for
// us.
func TestOpenSSL(t *testing.T) {
	tpm := startTPM(t)
	providers, _ := filepath.Glob("/usr/lib/*/ossl-modules/tpm2.so")
	if len(providers) == 0 && os.Getenv("AZMTLS_REAL_PARTS") == "" {
		t.Skip("there is no tpm2-openssl: make test installs it")
	}
	folder := t.TempDir()
	k := tpmKeyOf(t, Keys{tpm.Socket, folder})
	file := filepath.Join(folder, folderName, keyFile)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(in("message"), []byte("message"), 0o600))

	tpm.Stop() // tpm2-tss knows swtpm on TCP only
	port := freePort(t)
	require.NoError(t, tpm.StartTCP(port))
	openssl := func(args ...string) {
		t.Helper()
		providers := []string{args[0], "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2"}
		cmd := exec.Command("openssl", append(providers, args[1:]...)...)
		cmd.Env = append(os.Environ(), "TPM2OPENSSL_TCTI=swtpm:host=127.0.0.1,port="+strconv.Itoa(port), "TSS2_LOG=all+NONE")
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", output)
	}
	digest := digestOf(crypto.SHA256)
	openssl("dgst", "-sha256", "-sign", file, "-out", in("pkcs1"), in("message"))
	signature, err := os.ReadFile(in("pkcs1"))
	require.NoError(t, err)
	require.NoError(t, rsa.VerifyPKCS1v15(k.wrapped.key, crypto.SHA256, digest, signature))
	openssl("dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sign", file, "-out", in("pss"), in("message"))
	signature, err = os.ReadFile(in("pss"))
	require.NoError(t, err)
	require.NoError(t, padding{crypto.SHA256, true}.verify(k.wrapped.key, digest, signature))
	openssl("req", "-new", "-key", file, "-subj", "/CN=azmtls", "-out", in("request.pem"))
	text, err := os.ReadFile(in("request.pem"))
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, request.CheckSignature())
	require.True(t, k.wrapped.key.Equal(request.PublicKey))
	openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "bits:2048", "-out", in("theirs.pem"))

	tpm.Stop()
	require.NoError(t, tpm.Start())
	text, err = os.ReadFile(in("theirs.pem"))
	require.NoError(t, err)
	theirs, err := parseWrapped(text)
	require.NoError(t, err)
	require.NoError(t, signs(&key{newDevice(tpm.Socket), theirs}))
	require.NoError(t, signs(k))
	require.NoError(t, tpm.Wipe())
	require.ErrorIs(t, signs(k), errDead)
	require.ErrorIs(
		t,
		signs(&key{newDevice(tpm.Socket), theirs}),
		mtls.ErrKeyNotNow,
		"its file does not say below what it was made",
	)
}

func freePort(t *testing.T) int {
	for {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1)))
		_ = first.Close()
		if err == nil {
			_ = second.Close()
			return port
		}
	}
}
