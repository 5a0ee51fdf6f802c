package imdstest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// serverHeader is how IMDS names itself.
const serverHeader = "IMDS/150.870.65.1854"

// serveIMDS is the metadata service.
func (s *Server) serveIMDS(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", serverHeader)
	w.Header().Set("Date", s.options.Time().UTC().Format(http.TimeFormat))
	switch r.URL.Path {
	case "/metadata/identity/getplatformmetadata":
		s.count(func(c *Counts) { c.Metadata++ })
		if r.Method == http.MethodGet && r.Header.Get("Metadata") == "" {
			imdsError(w, http.StatusBadRequest, "the Metadata header is missing") // a probe: IMDS v2 is here
			return
		}
		s.exchange(Metadata, w, r, s.strictly(Metadata, s.metadata))
	case "/metadata/identity/issuecredential":
		s.count(func(c *Counts) {
			c.Issue++
			if r.URL.Query().Has(bypassCache) {
				c.IssueBypass++
			}
		})
		s.exchange(Issue, w, r, s.strictly(Issue, s.issueCredential))
	case "/metadata/identity/oauth2/token", "/metadata/identity/oauth2/token/": // MSAL.js asks the latter
		s.count(func(c *Counts) { c.V1++ })
		s.exchange(V1, w, r, s.serveV1)
	default:
		s.reject(Metadata, "unknown path "+r.URL.Path)
		imdsError(w, http.StatusNotFound, "not found")
	}
}

// refusedError is what a strict check found.
type refusedError struct {
	status int
	reason string
}

func (e *refusedError) Error() string { return e.reason }

func refuse(format string, args ...any) error {
	return &refusedError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// imdsHandler answers a request for an identity that has passed the checks of both endpoints.
type imdsHandler func(*http.Request, identity) (map[string]any, error)

// strictly returns the handler of an endpoint of IMDS v2, with all its checks.
func (s *Server) strictly(endpoint Endpoint, handle imdsHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := s.checkIMDS(r, endpoint)
		var body map[string]any
		if err == nil {
			body, err = handle(r, id)
		}
		if err != nil {
			s.rejectUnless(endpoint, err, errUnknownBypass)
			imdsError(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, body)
	}
}

// rejectUnless notes that a request was not as it must be, unless its error is one that a correct request can get.
func (s *Server) rejectUnless(endpoint Endpoint, err, correct error) {
	if _, assigned := errors.AsType[notAssigned](err); !assigned && !errors.Is(err, correct) {
		s.reject(endpoint, err.Error())
	}
}

// bypassCache is the query parameter that asks for a new certificate instead of one that the key has already.
const bypassCache = "bypass_cache"

// errUnknownBypass is how an IMDS answers that does not know bypass_cache.
var errUnknownBypass = refuse("the query parameter %s is unknown", bypassCache)

// checkIMDS applies the checks that both requests to IMDS v2 have in common, and returns the identity asked for.
func (s *Server) checkIMDS(r *http.Request, endpoint Endpoint) (identity, error) {
	method := http.MethodGet
	if endpoint == Issue {
		method = http.MethodPost
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case r.Method != method:
		return identity{}, refuse("the method is %s, not %s", r.Method, method)
	case r.Header.Get("Metadata") != "true":
		return identity{}, refuse("the header Metadata is %q, not true", r.Header.Get("Metadata"))
	case uuid.Validate(r.Header.Get("x-ms-client-request-id")) != nil:
		return identity{}, refuse("the header x-ms-client-request-id is not a GUID")
	case r.Header.Get("X-Forwarded-For") != "":
		return identity{}, refuse("the request came through a proxy (X-Forwarded-For)")
	case err != nil:
		return identity{}, refuse("the query is malformed")
	case len(query["cred-api-version"]) != 1 || query.Get("cred-api-version") != "2.0":
		return identity{}, refuse("the query parameter cred-api-version is not 2.0")
	}
	delete(query, "cred-api-version")
	if bypass, given := query[bypassCache]; given && endpoint == Issue {
		switch {
		case len(bypass) != 1 || bypass[0] != "true":
			return identity{}, refuse("the query parameter %s is not true", bypassCache)
		case s.options.RefuseBypassCache:
			return identity{}, errUnknownBypass
		}
		delete(query, bypassCache)
	}
	return s.identify(query, "mi_res_id")
}

// guidOf returns the GUID that stands for a name, always the same (RFC 9562, section 5.8: one of version 5 would need
// SHA-1).
func guidOf(name string) string {
	return uuid.NewHash(sha256.New(), uuid.NameSpaceURL, []byte(name), 8).String()
}

func (s *Server) cuID() (compact string) {
	id := struct {
		VMID   string `json:"vmId,omitempty"`
		VMSSID string `json:"vmssId,omitempty"`
	}{s.options.VMID, s.options.VMSSID}
	return string(must(json.Marshal(id)))
}

func (s *Server) metadata(_ *http.Request, id identity) (map[string]any, error) {
	var cuID map[string]any
	if err := json.Unmarshal([]byte(s.cuID()), &cuID); err != nil {
		return nil, err
	}
	return map[string]any{
		"clientId":            id.clientID,
		"tenantId":            s.options.TenantID,
		"cuId":                cuID,
		"attestationEndpoint": "https://attestation.invalid",
	}, nil
}

func (s *Server) issueCredential(r *http.Request, id identity) (map[string]any, error) {
	if contentType := r.Header.Get("Content-Type"); contentType != "application/json; charset=utf-8" {
		return nil, refuse("the content type is %q, not application/json; charset=utf-8", contentType)
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var fields map[string]string
	if err != nil || json.Unmarshal(raw, &fields) != nil {
		return nil, refuse("the body is not a JSON object of strings")
	}
	for name, value := range fields {
		if name != "csr" && name != "attestation_token" {
			return nil, refuse("the field %s is unknown", name)
		}
		if value == "" {
			return nil, refuse("the field %s is empty", name)
		}
	}
	if s.options.RequireAttestation && fields["attestation_token"] == "" {
		return nil, refuse("the attestation_token is missing")
	}
	if strings.ContainsAny(fields["csr"], "\r\n-") {
		return nil, refuse("the csr has line breaks or PEM armour")
	}
	der, err := base64.StdEncoding.DecodeString(fields["csr"])
	if err != nil {
		return nil, refuse("the csr is not base64")
	}
	public, err := checkCSR(der, s.options.TenantID, id.clientID, s.cuID())
	if err != nil {
		return nil, refuse("the csr: %v", err)
	}
	leaf, err := s.certify(public, id.clientID, !s.options.ReissueSame || r.URL.Query().Has(bypassCache))
	if err != nil {
		return nil, err
	}
	s.count(func(c *Counts) { c.Issued++ })
	return map[string]any{
		"client_id":                    id.clientID,
		"tenant_id":                    s.options.TenantID,
		"certificate":                  base64.StdEncoding.EncodeToString(leaf.Raw),
		"identity_type":                id.kind,
		"mtls_authentication_endpoint": s.tokenURL,
	}, nil
}

func imdsError(w http.ResponseWriter, status int, description string) {
	writeJSON(w, status, map[string]any{"error": "invalid_request", "error_description": description})
}

func writeJSON(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
