package imdstest

import (
	"crypto/x509"
	"encoding/json"
	"errors"
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
	const formType = "application/x-www-form-urlencoded"
	if contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); contentType != formType {
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
	asked, capabilities, err := readClaims(form.Get("claims"))
	switch {
	case form.Get("client_id") != client.Subject.CommonName:
		return nil, &entraError{"invalid_client", 700027, "the client_id is not that of the certificate"}
	case form.Get("grant_type") != "client_credentials":
		return nil, &entraError{"unsupported_grant_type", 70003, "the grant_type is not client_credentials"}
	case !isDefault || resource == "" || strings.ContainsAny(resource, " \t"):
		return nil, &entraError{"invalid_scope", 70011, "the scope is not one resource with /.default"}
	case form.Get("token_type") != "mtls_pop" && form.Get("token_type") != "bearer":
		return nil, bad("the token_type is neither mtls_pop nor bearer")
	case err != nil:
		return nil, bad("the claims are not the JSON of a claims request")
	}
	granted, tokenType := tokenClaims{AppID: client.Subject.CommonName, Capabilities: capabilities, Asked: asked}, "Bearer"
	if form.Get("token_type") == "mtls_pop" {
		granted.Confirmation, tokenType = map[string]string{"x5t#S256": thumbprint(client)}, "mtls_pop"
	}
	token, err := s.sign(granted, resource)
	if err != nil {
		return nil, &entraError{"server_error", 90033, err.Error()}
	}
	s.count(func(c *Counts) { c.TokenIssued++ })
	return map[string]any{
		"token_type":   tokenType,
		"expires_in":   int(s.options.TokenLifetime / time.Second),
		"refresh_in":   int(s.options.RefreshIn / time.Second),
		"access_token": token,
	}, nil
}

// readClaims reads a claims request, "" for none: all of it, and the capabilities of the client.
func readClaims(text string) (asked map[string]any, capabilities []string, err error) {
	if text == "" {
		return nil, nil, nil
	}
	var claims struct {
		AccessToken map[string]struct{ Values []string } `json:"access_token"`
	}
	if !strings.HasPrefix(text, "{") {
		return nil, nil, errors.New("it is no object")
	}
	err = errors.Join(json.Unmarshal([]byte(text), &claims), json.Unmarshal([]byte(text), &asked))
	return asked, claims.AccessToken["xms_cc"].Values, err
}

// tokenClaims are those of an access token.
type tokenClaims struct {
	jwt.RegisteredClaims
	Resource     string            `json:"aud"` // one string, as Entra has it
	AppID        string            `json:"appid"`
	ObjectID     string            `json:"oid"`
	TenantID     string            `json:"tid"`
	Confirmation map[string]string `json:"cnf,omitempty"`    // RFC 8705: x5t#S256
	Capabilities []string          `json:"xms_cc,omitempty"` // of the client
	Asked        map[string]any    `json:"asked,omitempty"`  // the simulator's own: what it was asked for with
}

// GetAudience implements jwt.Claims.
func (c tokenClaims) GetAudience() (jwt.ClaimStrings, error) {
	return jwt.ClaimStrings{c.Resource}, nil
}

// sign returns a token for a client and a resource, with the other claims that it is given.
func (s *Server) sign(claims tokenClaims, resource string) (string, error) {
	now := s.options.Time()
	claims.RegisteredClaims = jwt.RegisteredClaims{
		Issuer:    "https://sts.windows.net/" + s.options.TenantID + "/",
		IssuedAt:  jwt.NewNumericDate(now.Add(-time.Second)),
		NotBefore: jwt.NewNumericDate(now.Add(-time.Second)),
		ExpiresAt: jwt.NewNumericDate(now.Add(s.options.TokenLifetime)),
		ID:        uuid.NewString(),
	}
	claims.Resource, claims.ObjectID, claims.TenantID = resource, s.objectIDOf(claims.AppID), s.options.TenantID
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
