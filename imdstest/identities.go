package imdstest

import (
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// Identity is a user-assigned managed identity. A request to IMDS names it by any of the three.
type Identity struct {
	ClientID   string // a GUID
	ObjectID   string // a GUID. Default: one that belongs to the client id
	ResourceID string // /subscriptions/…, compared without case. Default: none
}

// identity is a managed identity of the machine, as IMDS answers for it.
type identity struct{ clientID, kind string }

const (
	systemAssigned = "SystemAssigned"
	userAssigned   = "UserAssigned"
)

// notAssigned is an answer that a correct request can get: the machine has no such identity, or it is not clear which
// one is meant. Its words are the service's.
type notAssigned string

func (e notAssigned) Error() string { return string(e) }

const (
	errUnknownIdentity   notAssigned = "Identity not found"
	errNoIdentity        notAssigned = "No managed identity is assigned to this machine"
	errSeveralIdentities notAssigned = "Multiple user assigned identities exist, " +
		"please specify the clientId / resourceId of the identity in the token request"
)

// identify returns the identity that the rest of a query names. Both versions of IMDS know the same ones, but for a
// resource id they have each a parameter of its own.
func (s *Server) identify(query url.Values, resourceID string) (identity, error) {
	if len(query) == 0 {
		return s.unnamed()
	}
	for name, values := range query {
		if len(query) > 1 || len(values) != 1 || values[0] == "" {
			return identity{}, refuse("the query names more than one identity, or an empty one")
		}
		switch name {
		case "client_id", "object_id":
			if name == "client_id" && uuid.Validate(values[0]) != nil {
				return identity{}, refuse("client_id is not a GUID")
			}
			return s.named(name, values[0])
		case resourceID:
			return s.named("resource_id", values[0])
		}
		return identity{}, refuse("the query parameter %s is unknown", name)
	}
	return identity{}, nil
}

// unnamed returns the identity that a request means that names none.
func (s *Server) unnamed() (identity, error) {
	assigned := s.options.UserAssigned
	switch {
	case !s.options.NoSystemAssigned:
		return identity{s.system.current(), systemAssigned}, nil
	case len(assigned) == 0:
		return identity{}, errNoIdentity
	case len(assigned) > 1:
		return identity{}, errSeveralIdentities
	}
	return identity{assigned[0].ClientID, userAssigned}, nil
}

// named returns the user-assigned identity that has an id of that kind.
func (s *Server) named(kind, id string) (identity, error) {
	for _, i := range s.options.UserAssigned {
		if has := map[string]string{
			"client_id": i.ClientID, "object_id": i.objectID(), "resource_id": i.ResourceID,
		}; strings.EqualFold(has[kind], id) {
			return identity{i.ClientID, userAssigned}, nil
		}
	}
	switch {
	case s.options.UserAssigned != nil:
		return identity{}, errUnknownIdentity
	case kind == "client_id":
		return identity{id, userAssigned}, nil
	}
	return identity{guidOf(id), userAssigned}, nil
}

// objectIDOf returns the object id of a client.
func (s *Server) objectIDOf(clientID string) string {
	for _, i := range s.options.UserAssigned {
		if i.ClientID == clientID {
			return i.objectID()
		}
	}
	return guidOf(clientID)
}

func (i Identity) objectID() string {
	if i.ObjectID != "" {
		return i.ObjectID
	}
	return guidOf(i.ClientID)
}
