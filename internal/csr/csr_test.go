package csr_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/azmtls/azmtls/internal/csr"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var update = flag.Bool("update", false, "write the golden certificate request anew")

const (
	goldenFile = "../../testdata/csr.golden.der"
	keyFile    = "../../testdata/csr.key.pem"
)

var params = csr.Params{
	ClientID: "11111111-2222-3333-4444-555555555555",
	TenantID: "99999999-8888-7777-6666-555555555555",
	CuID:     []byte(`{"vmId":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","vmssId":"ffffffff-0000-1111-2222-333333333333"}`),
}

// goldenKey is a key that signs nothing but the golden request.
var goldenKey = sync.OnceValues(func() (*rsa.PrivateKey, error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key.(*rsa.PrivateKey), nil
})

// signedParts splits a request into what is signed with its algorithm, and the signature, which is randomised.
func signedParts(t *testing.T, der []byte) (info, algorithm []byte) {
	t.Helper()
	input := cryptobyte.String(der)
	var request, first, second cryptobyte.String
	require.True(t, input.ReadASN1(&request, asn1.SEQUENCE))
	require.True(t, input.Empty())
	require.True(t, request.ReadASN1Element(&first, asn1.SEQUENCE))
	require.True(t, request.ReadASN1Element(&second, asn1.SEQUENCE))
	return first, second
}

// The bytes on the wire must not change by accident: the live service refuses what deviates.
func TestGolden(t *testing.T) {
	key, err := goldenKey()
	require.NoError(t, err)
	der, err := csr.New(key, params)
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(goldenFile, der, 0o644))
	}
	golden, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	info, algorithm := signedParts(t, der)
	goldenInfo, goldenAlgorithm := signedParts(t, golden)
	require.Equal(t, goldenInfo, info)
	require.Equal(t, goldenAlgorithm, algorithm)
	for _, request := range [][]byte{der, golden} {
		parsed, err := x509.ParseCertificateRequest(request)
		require.NoError(t, err)
		require.Equal(t, x509.SHA256WithRSAPSS, parsed.SignatureAlgorithm)
		require.NoError(t, parsed.CheckSignature())
		require.Equal(t, params.ClientID, parsed.Subject.CommonName)
	}
}

// RFC 4055 by the byte: no NULL after a hash OID, no trailer field.
func TestAlgorithmHasNoNull(t *testing.T) {
	key, err := goldenKey()
	require.NoError(t, err)
	der, err := csr.New(key, params)
	require.NoError(t, err)
	_, algorithm := signedParts(t, der)
	require.False(t, bytes.Contains(algorithm, []byte{0x05, 0x00}), "NULL")
	require.False(t, bytes.Contains(algorithm, []byte{0xa3}), "trailerField")
	require.Len(t, algorithm, 63)
}

// OpenSSL is somebody else's opinion of the request.
func TestOpenSSLAccepts(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil && os.Getenv("AZMTLS_REAL_PARTS") == "" {
		t.Skip("openssl is not installed; `make test` installs it")
	}
	require.NoError(t, err)
	key, err := goldenKey()
	require.NoError(t, err)
	der, err := csr.New(key, params)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "request.der")
	require.NoError(t, os.WriteFile(file, der, 0o600))
	out, err := exec.Command(openssl, "req", "-verify", "-inform", "DER", "-noout", "-subject", "-in", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), params.ClientID)

	der[len(der)-1] ^= 1 // and it can tell a bad signature
	require.NoError(t, os.WriteFile(file, der, 0o600))
	out, _ = exec.Command(openssl, "req", "-verify", "-inform", "DER", "-noout", "-in", file).CombinedOutput()
	require.NotContains(t, string(out), "self-signature verify OK")
}

type failingSigner struct {
	crypto.Signer
	err error
}

func (s failingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, s.err }

// All that the types of the names hold is taken, to the ends of their alphabets.
func TestNamesAtTheirEdges(t *testing.T) {
	key, err := goldenKey()
	require.NoError(t, err)
	p := params
	p.ClientID, p.TenantID = "AZaz09 '()+,-./:=?", "\x00\x7f~@"
	der, err := csr.New(key, p)
	require.NoError(t, err)
	require.Contains(t, string(der), p.ClientID)
	require.Contains(t, string(der), p.TenantID)
	for _, beyond := range "@[`{/0:9" {
		p := params
		p.ClientID = string(beyond)
		_, err := csr.New(key, p)
		require.Equal(t, strings.ContainsRune("/0:9", beyond), err == nil, "%q", beyond)
	}
}

func TestRefusals(t *testing.T) {
	key, err := goldenKey()
	require.NoError(t, err)
	long, err := rsa.GenerateKey(rand.Reader, 3072)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	broken := errors.New("the TPM is gone")
	edit := func(f func(*csr.Params)) csr.Params { p := params; f(&p); return p }
	for name, test := range map[string]struct {
		key     crypto.Signer
		params  csr.Params
		culprit string
	}{
		"long key":            {long, params, "2048 bits, not 3072"},
		"no RSA key":          {curve, params, "RSA"},
		"failing key":         {failingSigner{key, broken}, params, broken.Error()},
		"no client id":        {key, edit(func(p *csr.Params) { p.ClientID = "" }), "client id"},
		"client id":           {key, edit(func(p *csr.Params) { p.ClientID = "a@b" }), "PrintableString"},
		"no tenant id":        {key, edit(func(p *csr.Params) { p.TenantID = "" }), "tenant id"},
		"tenant id":           {key, edit(func(p *csr.Params) { p.TenantID = "ü" }), "IA5String"},
		"just beyond IA5":     {key, edit(func(p *csr.Params) { p.TenantID = "\u0080" }), "IA5String"},
		"no cuId":             {key, edit(func(p *csr.Params) { p.CuID = nil }), "compute unit"},
		"compute unit in UTF": {key, edit(func(p *csr.Params) { p.CuID = []byte{0xff} }), "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			der, err := csr.New(test.key, test.params)
			require.ErrorContains(t, err, test.culprit)
			require.Nil(t, der)
		})
	}
	_, err = csr.New(failingSigner{key, broken}, params)
	require.ErrorIs(t, err, broken)
}

// Whatever IMDS says of the machine, New returns an error or a request that parses.
func FuzzNew(f *testing.F) {
	f.Add(params.ClientID, params.TenantID, params.CuID)
	f.Add("", "", []byte(nil))
	key, err := goldenKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, clientID, tenantID string, cuID []byte) {
		der, err := csr.New(key, csr.Params{ClientID: clientID, TenantID: tenantID, CuID: cuID})
		if err != nil {
			return
		}
		if _, err := x509.ParseCertificateRequest(der); err != nil {
			t.Fatalf("the request does not parse: %v", err)
		}
	})
}
