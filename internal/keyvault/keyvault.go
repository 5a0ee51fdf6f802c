// Package keyvault is what Azure Key Vault and Managed HSM do unlike other resources that take bound tokens.
package keyvault

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Header makes the service ask for the certificate that the token is bound to.
const Header = "x-ms-tokenboundauth"

// IsHost reports whether a host is one of the service, which wants the Header: <name>.vault.<cloud> or
// <name>.managedhsm.<cloud>, with a trailing dot or not. Clouds are many (azure.net, usgovcloudapi.net, azure.cn,
// sovcloud-api.fr …), and new ones come.
func IsHost(host string) bool {
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(host), "."), ".")
	if len(labels) < 3 || slices.Contains(labels, "") || strings.Contains(host, ":") {
		return false
	}
	return labels[1] == "vault" || labels[1] == "managedhsm"
}

// mismatch is the code by which the service says that the certificate is not the one that the token is bound to.
const mismatch = "MtlsCnfClaimRequestDataValidationFailed"

// MayRefuse reports whether an answer with this status and media type, to a request with these headers, can be the
// service's refusal of a certificate.
func MayRefuse(request http.Header, status int, mediaType string) bool {
	return status == http.StatusUnauthorized && mediaType == "application/json" && request.Get(Header) != ""
}

// Refuses reports whether the body of such an answer is that refusal: its code is the whole value of error.code or of
// an error.innererror.code. Names and values elsewhere may be a user's.
func Refuses(body []byte) bool {
	var at map[string]json.RawMessage
	if json.Unmarshal(body, &at) != nil {
		return false
	}
	name := "error"
	for range 10 { // innererror nests, two deep as it is
		var inner map[string]json.RawMessage
		if json.Unmarshal(at[name], &inner) != nil {
			return false
		}
		var code string
		if json.Unmarshal(inner["code"], &code) == nil && code == mismatch {
			return true
		}
		at, name = inner, "innererror"
	}
	return false
}
