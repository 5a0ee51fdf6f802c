package imdstest

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// entraError is an error of the token endpoint.
type entraError struct {
	code   string // OAuth
	aadsts int
	reason string
}

func (e *entraError) Error() string { return e.reason }

// serveToken is the token endpoint.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	client := r.TLS.PeerCertificates[0]
	if s.system.isDeleted(client.Subject.CommonName) {
		reason := fmt.Sprintf("Application with identifier '%s' was not found in the directory", client.Subject.CommonName)
		writeEntraError(w, r, http.StatusBadRequest, "unauthorized_client", "700016", reason)
		return
	}
	body, failure := s.token(r, client)
	if failure != nil {
		s.reject(Token, failure.reason)
		writeEntraError(w, r, entraStatus(failure.code), failure.code, fmt.Sprint(failure.aadsts), failure.reason)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

// token checks a token request and answers it.
func (s *Server) token(r *http.Request, client *x509.Certificate) (map[string]any, *entraError) {
	bad := func(format string, args ...any) *entraError {
		return &entraError{"invalid_request", 900144, fmt.Sprintf(format, args...)}
	}
	if r.Method != http.MethodPost {
		return nil, bad("the method is %s, not POST", r.Method)
	}
	if want := "/" + s.options.TenantID + "/oauth2/v2.0/token"; r.URL.Path != want || r.URL.RawQuery != "" {
		return nil, bad("the path is not %s", want)
	}
	if contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); contentType != "application/x-www-form-urlencoded" {
		return nil, bad("the content type is %q", contentType)
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, bad("the body cannot be read")
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, bad("the form is malformed")
	}
	known := []string{"client_id", "grant_type", "scope", "token_type", "claims"}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if !slices.Contains(known, name) || len(form[name]) != 1 || form.Get(name) == "" {
			return nil, bad("the field %s is unknown, empty or given twice", name)
		}
	}
	resource, isDefault := strings.CutSuffix(form.Get("scope"), "/.default")
	var claims struct {
		AccessToken map[string]struct{ Values []string } `json:"access_token"`
	}
	switch {
	case form.Get("client_id") != client.Subject.CommonName:
		return nil, &entraError{"invalid_client", 700027, "the client_id is not that of the certificate"}
	case form.Get("grant_type") != "client_credentials":
		return nil, &entraError{"unsupported_grant_type", 70003, "the grant_type is not client_credentials"}
	case !isDefault || resource == "" || strings.ContainsAny(resource, " \t"):
		return nil, &entraError{"invalid_scope", 70011, "the scope is not one resource with /.default"}
	case form.Get("token_type") != "mtls_pop" && form.Get("token_type") != "bearer":
		return nil, bad("the token_type is neither mtls_pop nor bearer")
	case form.Get("claims") != "" && (!strings.HasPrefix(form.Get("claims"), "{") || json.Unmarshal([]byte(form.Get("claims")), &claims) != nil):
		return nil, bad("the claims are not the JSON of a claims request")
	}
	bound := form.Get("token_type") == "mtls_pop"
	certificate := ""
	if bound {
		certificate = thumbprint(client)
	}
	token, err := s.sign(client.Subject.CommonName, resource, certificate, claims.AccessToken["xms_cc"].Values)
	if err != nil {
		return nil, &entraError{"server_error", 90033, err.Error()}
	}
	s.count(func(c *Counts) { c.TokenIssued++ })
	tokenType := "Bearer"
	if bound {
		tokenType = "mtls_pop"
	}
	return map[string]any{
		"token_type":   tokenType,
		"expires_in":   int(s.options.TokenLifetime / time.Second),
		"refresh_in":   int(s.options.RefreshIn / time.Second),
		"access_token": token,
	}, nil
}

// sign returns a token for the client, bound to the certificate with this x5t#S256 if there is one.
func (s *Server) sign(clientID, resource, certificate string, capabilities []string) (string, error) {
	now := s.options.Time()
	claims := jwt.MapClaims{
		"aud":   resource,
		"iss":   "https://sts.windows.net/" + s.options.TenantID + "/",
		"iat":   now.Add(-time.Second).Unix(),
		"nbf":   now.Add(-time.Second).Unix(),
		"exp":   now.Add(s.options.TokenLifetime).Unix(),
		"appid": clientID,
		"oid":   guidOf(clientID),
		"tid":   s.options.TenantID,
		"jti":   uuid.NewString(),
	}
	if certificate != "" {
		claims["cnf"] = map[string]string{"x5t#S256": certificate}
	}
	if len(capabilities) > 0 {
		claims["xms_cc"] = capabilities
	}
	return jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(s.authority.tokenKey)
}

// entraStatus returns the status that goes with an OAuth error.
func entraStatus(code string) int {
	if code == "invalid_client" {
		return http.StatusUnauthorized
	}
	return http.StatusBadRequest
}

// writeEntraError writes an error as Entra does.
func writeEntraError(w http.ResponseWriter, r *http.Request, status int, code, aadsts, reason string) {
	correlation := r.Header.Get("client-request-id")
	if correlation == "" {
		correlation = uuid.NewString()
	}
	trace, now := uuid.NewString(), time.Now().UTC().Format("2006-01-02 15:04:05Z")
	writeJSON(w, status, map[string]any{
		"error": code,
		"error_description": fmt.Sprintf(
			"AADSTS%s: %s. Trace ID: %s Correlation ID: %s Timestamp: %s",
			aadsts,
			reason,
			trace,
			correlation,
			now,
		),
		"error_codes":    []json.Number{json.Number(aadsts)},
		"timestamp":      now,
		"trace_id":       trace,
		"correlation_id": correlation,
	})
}
