package secrets_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/secrets"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// Every kind of secret is found, wherever it stands in a text, and the ordinary words of a log are not.
func TestSearchFinds(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"aud": "a"}).SignedString(key)
	require.NoError(t, err)
	print := sha256.Sum256(request)
	for name, value := range map[string]any{
		"token":       "Authorization: Bearer " + token,
		"request":     `{"csr":"` + base64.StdEncoding.EncodeToString(request) + `"}`,
		"key in PEM":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"key":         *key,
		"its numbers": key.D,
		"thumbprint":  "evicted " + base64.RawURLEncoding.EncodeToString(print[:]),
		"planted":     errors.New("client 11111111-2222-3333-4444-555555555555 is unknown"),
		"wrapped":     fmt.Errorf("stage: %w", errors.New("planted-claim")),
		"field":       struct{ Claims string }{"planted-claim"},
	} {
		if !secrets.Thorough && slices.Contains([]string{"thumbprint", "its numbers", "key"}, name) {
			continue
		}
		var s secrets.Search
		s.Plant("11111111-2222-3333-4444-555555555555", "planted-claim")
		s.Values(value)
		require.NotEmpty(t, s.Found(), name)
	}

	var s secrets.Search
	s.Plant("11111111-2222-3333-4444-555555555555")
	correlated := errors.New("correlation id 0d0d0d0d-1111-4222-8333-444444444444")
	s.Values("evicted binding AbCdEf… of 111111…#att=0", correlated)
	require.Empty(t, s.Found())
	report := s.Report("suite")
	require.Equal(t, 1, report.Planted)
	require.Equal(t, 6, report.Texts)
	require.Positive(t, report.Bytes)
	require.Zero(t, report.Found)
}

// A noisy leak does not fill the memory.
func TestFindingsAreBounded(t *testing.T) {
	var s secrets.Search
	s.Plant("planted")
	for range 1000 {
		s.Text("planted -----BEGIN")
	}
	require.Len(t, s.Found(), 20)
}

// A test that listens to the log does not end the search, and spans are searched.
func TestListenAndSpans(t *testing.T) {
	var s secrets.Search
	s.Plant("planted")
	heard := 0
	t.Run("a test that listens", func(t *testing.T) {
		s.Listen(t, func(log.Event, string) { heard++ })
		eventlog.Writef(t.Context(), eventlog.Binding, "planted")
	})
	t.Cleanup(func() { log.SetListener(nil) })
	require.Equal(t, 1, heard)
	require.Len(t, s.Found(), 1)
	eventlog.Writef(t.Context(), eventlog.Binding, "planted")
	require.Equal(t, 1, heard)
	require.Len(t, s.Found(), 2)

	_, span := s.TracingProvider().NewTracer("m", "v").Start(context.Background(), "planted", nil)
	span.SetAttributes(tracing.Attribute{Key: "k", Value: "planted"})
	span.SetStatus(tracing.SpanStatusError, "planted")
	span.End()
	require.Greater(t, len(s.Found()), 4)
}
