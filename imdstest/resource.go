package imdstest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Caller is who a request to the resource comes from.
type Caller struct {
	// ClientID is that of the token (appid).
	ClientID string
	// Scheme is "mtls_pop" or "Bearer".
	Scheme string
	// Thumbprint is the x5t#S256 of the certificate on the connection, empty without one.
	Thumbprint string
}

type callerKey struct{}

// CallerFromContext returns the caller of a request that reached Options.ResourceHandler.
func CallerFromContext(ctx context.Context) (Caller, bool) {
	caller, ok := ctx.Value(callerKey{}).(Caller)
	return caller, ok
}

// serveResource is the protected resource.
func (s *Server) serveResource(w http.ResponseWriter, r *http.Request) {
	var client *x509.Certificate
	if certificates := r.TLS.PeerCertificates; len(certificates) > 0 {
		client = certificates[0]
	}
	if s.challengeOfVault(w, r) {
		return
	}
	var claims tokenClaims
	caller, err := s.authorize(r, client, &claims)
	if err != nil {
		s.reject(Resource, err.Error())
		if s.options.Vault != "" {
			inner := ""
			if _, unconfirmed := errors.AsType[unconfirmedError](err); unconfirmed {
				inner = cnfInvalid
			}
			writeVaultError(w, err.Error(), inner)
			return
		}
		w.Header().Set("WWW-Authenticate", `mtls_pop error="invalid_token"`)
		writeJSON(
			w,
			http.StatusUnauthorized,
			map[string]any{"error": map[string]any{"code": "InvalidAuthenticationToken", "message": err.Error()}},
		)
		return
	}
	if s.challenge(w, claims) {
		return
	}
	s.count(func(c *Counts) { c.ResourceAuthorized++ })
	s.options.ResourceHandler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
}

// authorize checks the token of a request, whose claims it fills in, and that it was sent the way such a token must be.
func (s *Server) authorize(r *http.Request, client *x509.Certificate, claims *tokenClaims) (Caller, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token == "" {
		return Caller{}, fmt.Errorf("the request carries no token")
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods([]string{"ES256"}),
		jwt.WithTimeFunc(s.options.Time),
		jwt.WithExpirationRequired(),
	}
	if s.options.ResourceAudience != "" {
		options = append(options, jwt.WithAudience(s.options.ResourceAudience))
	}
	key := func(*jwt.Token) (any, error) { return s.TokenKey(), nil }
	if _, err := jwt.ParseWithClaims(token, claims, key, options...); err != nil {
		return Caller{}, fmt.Errorf("the token is not valid: %w", err)
	}
	caller := Caller{ClientID: claims.AppID, Scheme: scheme}
	if client != nil {
		caller.Thumbprint = thumbprint(client)
	}
	bound := claims.Confirmation["x5t#S256"]
	switch {
	case scheme == "mtls_pop" && bound == "":
		return Caller{}, fmt.Errorf("a token that is bound to no certificate was sent as mtls_pop")
	case scheme == "mtls_pop" && s.options.Vault != "" && r.Header.Get(boundHeader) != "true":
		return Caller{}, unconfirmedError("a bound token was sent to a vault without the header " + boundHeader + ": true")
	case scheme == "mtls_pop" && client == nil:
		return Caller{}, unconfirmedError("a bound token was sent on a connection without a certificate")
	case scheme == "mtls_pop" && bound != caller.Thumbprint:
		return Caller{}, unconfirmedError(
			"a token was sent on a connection with another certificate than the one it is bound to",
		)
	case scheme == "Bearer" && bound != "":
		return Caller{}, fmt.Errorf("a bound token was sent as Bearer")
	case scheme != "mtls_pop" && scheme != "Bearer":
		return Caller{}, fmt.Errorf("the scheme %q is neither mtls_pop nor Bearer", scheme)
	}
	return caller, nil
}

// describeCaller answers with what is known of the caller.
func describeCaller(w http.ResponseWriter, r *http.Request) {
	caller, _ := CallerFromContext(r.Context())
	writeJSON(w, http.StatusOK, map[string]any{"scheme": caller.Scheme, "certificate": caller.Thumbprint})
}
