package imdstest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// boundHeader is how a client tells a vault that its token is bound, so that the vault asks for the certificate.
const boundHeader = "x-ms-tokenboundauth"

// cnfInvalid is what a vault says of a bound token without its certificate.
const cnfInvalid = "MtlsCnfClaimRequestDataValidationFailed"

// vaultResource returns the audience of tokens for the vault: its host without its own name. The SDK's clients take a
// challenge for no other.
func (o Options) vaultResource() string {
	_, service, _ := strings.Cut(o.Vault, ".")
	return "https://" + service
}

// unconfirmedError says why a bound token is not known to come from the holder of its certificate. It alone is about
// the certificate: a vault refuses a token that is wrong otherwise in other words.
type unconfirmedError string

func (e unconfirmedError) Error() string { return string(e) }

// challengeOfVault answers a request without a token as a vault does, which tells its clients so whom to ask. It
// reports whether it answered.
func (s *Server) challengeOfVault(w http.ResponseWriter, r *http.Request) bool {
	if s.options.Vault == "" || r.Header.Get("Authorization") != "" {
		return false
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(
		`Bearer authorization="https://login.microsoftonline.com/%s", resource="%s"`,
		s.options.TenantID, s.options.vaultResource()))
	writeVaultError(w, "AKV10000: Request is missing a Bearer or PoP token.", "")
	return true
}

// writeVaultError writes a vault's refusal. The inner code is what clients go by; it may be empty.
func writeVaultError(w http.ResponseWriter, message, inner string) {
	body := map[string]any{"code": "Unauthorized", "message": message}
	if inner != "" {
		body["innererror"] = map[string]any{"code": inner}
	}
	writeJSON(w, http.StatusUnauthorized, map[string]any{"error": body})
}

// names are those of the servers, beside localhost.
func (s *Server) names() []string {
	if s.options.Vault == "" {
		return nil
	}
	return []string{s.options.Vault}
}

// dial reaches the vault under its name.
func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(address); err == nil && s.options.Vault != "" && host == s.options.Vault {
		address = s.ResourceAddress()
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}
