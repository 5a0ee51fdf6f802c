package imdstest

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// v1Version is the API version that azidentity and MSAL ask with.
const v1Version = "2018-02-01"

// serveV1 is IMDS v1: it gives bearer tokens over plain HTTP. What it demands, answers and refuses is what Microsoft
// documents at https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
// numbers as strings included.
func (s *Server) serveV1(w http.ResponseWriter, r *http.Request) {
	id, resource, err := s.checkV1(r)
	if err != nil {
		s.rejectUnless(V1, err, errV1Probe)
		imdsError(w, http.StatusBadRequest, err.Error())
		return
	}
	token, err := s.sign(tokenClaims{AppID: id.clientID}, resource)
	if err != nil {
		imdsError(w, http.StatusInternalServerError, err.Error())
		return
	}
	s.count(func(c *Counts) { c.V1Issued++ })
	now := s.options.Time()
	seconds := strconv.Itoa(int(s.options.TokenLifetime / time.Second))
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token":   token,
		"client_id":      id.clientID,
		"expires_in":     seconds,
		"expires_on":     strconv.FormatInt(now.Add(s.options.TokenLifetime).Unix(), 10),
		"ext_expires_in": seconds,
		"not_before":     strconv.FormatInt(now.Unix(), 10),
		"resource":       resource,
		"token_type":     "Bearer",
	})
}

// errV1Probe is the answer to a request that asks whether somebody is there, as DefaultAzureCredential does, or that
// came from somebody who was tricked into sending it.
var errV1Probe = refuse("Required metadata header not specified")

// checkV1 returns the identity and the resource of a request to IMDS v1.
func (s *Server) checkV1(r *http.Request) (id identity, resource string, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case err != nil:
		return id, "", refuse("the query is malformed")
	case r.Method != http.MethodGet:
		return id, "", refuse("the method is %s, not GET", r.Method)
	case len(r.Header["Metadata"]) == 0:
		return id, "", errV1Probe
	case r.Header.Get("Metadata") != "true":
		return id, "", refuse("the header Metadata is %q, not true", r.Header.Get("Metadata"))
	case r.Header.Get("X-Forwarded-For") != "":
		return id, "", refuse("the request came through a proxy (X-Forwarded-For)")
	case len(query["api-version"]) != 1 || query.Get("api-version") != v1Version:
		return id, "", refuse("the query parameter api-version is not %s", v1Version)
	case len(query["resource"]) != 1 || query.Get("resource") == "":
		return id, "", refuse("the query names no resource, or more than one")
	}
	resource = query.Get("resource")
	delete(query, "api-version")
	delete(query, "resource")
	id, err = s.identify(query, "msi_res_id")
	return id, resource, err
}
