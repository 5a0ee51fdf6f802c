package imdstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
)

// DemandClaims makes the resource demand tokens that were asked for with these claims, the JSON of a claims request, as
// continuous access evaluation does after an event: others get 401 with a claims challenge. That is no Rejection, and
// only tokens whose client said that it can answer (the capability cp1) get it. Empty claims end it. It panics if the
// claims are not a JSON object.
//
// See https://learn.microsoft.com/entra/identity-platform/claims-challenge.
func (s *Server) DemandClaims(claims string) {
	var demanded map[string]any
	if claims != "" {
		if err := json.Unmarshal([]byte(claims), &demanded); err != nil {
			panic(fmt.Sprintf("imdstest: the claims are not a JSON object: %v", err))
		}
	}
	s.demanded.Store(&demand{claims, demanded})
}

// demand is a claims request, as text and value.
type demand struct {
	text  string
	value map[string]any
}

// challenge answers a request whose token was not asked for with the claims that are demanded. It reports whether it
// did.
func (s *Server) challenge(w http.ResponseWriter, token tokenClaims) bool {
	d := s.demanded.Load()
	if d == nil || d.text == "" || !slices.Contains(token.Capabilities, "cp1") || contains(token.Asked, d.value) {
		return false
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(
		`Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", `+
			`error="insufficient_claims", claims="%s"`, base64.StdEncoding.EncodeToString([]byte(d.text))))
	writeJSON(w, http.StatusUnauthorized, map[string]any{"error": map[string]any{"code": "InvalidAuthenticationToken"}})
	return true
}

// contains reports whether the first value has all that the second has.
func contains(has, wants any) bool {
	object, isObject := wants.(map[string]any)
	if !isObject {
		return reflect.DeepEqual(has, wants)
	}
	own, _ := has.(map[string]any)
	for name, value := range object {
		if there, found := own[name]; !found || !contains(there, value) {
			return false
		}
	}
	return true
}
