package oauth_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/internal/oauth"
	"github.com/stretchr/testify/require"
)

// A byte order mark before the JSON does not hide what Entra says.
func TestByteOrderMarkIsSkipped(t *testing.T) {
	for _, mark := range []string{"", "\ufeff"} {
		body := mark + `{"error":"invalid_client","error_codes":[500181]}`
		e := oauth.Read(&http.Response{StatusCode: http.StatusUnauthorized, Body: io.NopCloser(strings.NewReader(body))})
		require.Equal(t, "invalid_client", e.Code)
		require.True(t, e.Has("AADSTS500181"))
	}
}
