package keyvault_test

import (
	"encoding/json"
	"testing"

	"github.com/azmtls/azmtls/internal/keyvault"
	"github.com/stretchr/testify/require"
)

// The service's refusal is a JSON object with its code; nothing else is taken for it, and an echo in a message never.
func FuzzRefuses(f *testing.F) {
	for _, seed := range []string{
		`{"error":{"code":"Unauthorized","innererror":{"code":"MtlsCnfClaimRequestDataValidationFailed"}}}`,
		`{"error":{"message":"MtlsCnfClaimRequestDataValidationFailed"}}`, `{"error":5}`, "null", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if keyvault.Refuses([]byte(body)) {
			require.True(t, json.Valid([]byte(body)))
			require.Contains(t, body, `"`)
		}
		echo, err := json.Marshal(map[string]any{"error": map[string]any{
			"code": "Unauthorized", "message": body + "MtlsCnfClaimRequestDataValidationFailed", "innererror": map[string]any{"target": body},
		}})
		require.NoError(t, err)
		require.False(t, keyvault.Refuses(echo))
	})
}
