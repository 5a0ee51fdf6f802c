// Package machine is what the commands work on: the machine that they run on, or a simulated one.
package machine

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/imds"
	"github.com/azmtls/azmtls/internal/platform"
	"github.com/azmtls/azmtls/mtls"
)

// Machine is where a command gets its certificates and tokens from.
type Machine struct {
	// Name says which it is, for people.
	Name string
	// Endpoint is the address of its IMDS.
	Endpoint string
	// Options are those of its credentials: key provider, store and cache are set.
	Options azmtls.ImdsV2MtlsCredentialOptions
	// Server is the simulator, nil on the real machine.
	Server *imdstest.Server
}

// Config says which machine.
type Config struct {
	// ID is a client id, object id (object:GUID) or resource id (/subscriptions/…). Empty: the system-assigned identity.
	ID string
	// Simulate has a machine simulated in this process.
	Simulate bool
	// Fault is one of Faults. It needs Simulate.
	Fault string
}

// Open returns the machine. The caller must Close it.
func Open(c Config) (*Machine, error) {
	id, err := parseID(c.ID)
	if err != nil {
		return nil, err
	}
	if !c.Simulate {
		if c.Fault != "" {
			return nil, fmt.Errorf("--fault needs --simulate")
		}
		m := &Machine{Name: "this machine", Endpoint: strings.TrimRight(imds.Endpoint(), "/")}
		m.Options.ID, m.Options.Cache = id, &mtls.Cache{}
		m.Options.KeyProvider, m.Options.Store = platform.Keys(), platform.Store()
		return m, nil
	}
	server := imdstest.NewServer(nil)
	m := &Machine{
		Name: "a simulated machine", Endpoint: server.IMDSURL(), Options: *server.CredentialOptions(), Server: server,
	}
	m.Options.ID = id
	if err := m.inject(c.Fault); err != nil {
		server.Close()
		return nil, err
	}
	return m, nil
}

// Close ends a simulated machine.
func (m *Machine) Close() {
	if m.Server != nil {
		m.Server.Close()
	}
}

// ID returns how IMDS is told of the machine's identity.
func (m *Machine) ID() imds.ID {
	id, _ := imds.IDOf(m.Options.ID) // that it cannot be right is told by who makes a credential for it
	return id
}

// Alias returns the name under which the bindings of the machine's identity are stored.
func (m *Machine) Alias() string {
	return m.ID().Alias(m.Options.Attestation != nil)
}

// Stored returns what the store holds. It is empty where nothing is stored.
func (m *Machine) Stored(ctx context.Context) ([]mtls.Stored, error) {
	lister, ok := m.Options.Store.(mtls.Lister)
	if !ok {
		return nil, nil
	}
	return lister.List(ctx)
}

func parseID(id string) (azidentity.ManagedIDKind, error) {
	object, isObject := strings.CutPrefix(id, "object:")
	switch {
	case id == "":
		return nil, nil
	case isObject && object != "":
		return azidentity.ObjectID(object), nil
	case strings.HasPrefix(id, "/"):
		return azidentity.ResourceID(id), nil
	case isObject || strings.ContainsAny(id, " /:"):
		return nil, fmt.Errorf("--id is a client id, object:GUID or a resource id (/subscriptions/…)")
	}
	return azidentity.ClientID(id), nil
}

// faults are what can befall a simulated machine.
var faults = map[string]func(*imdstest.Server){
	// The token endpoint refuses the first certificate (TLS alert): heals.
	"certificate-refused": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Times: 1})
	},
	// Entra answers invalid_client once: heals.
	"invalid-client": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{
			Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}, Times: 1,
		})
	},
	// The first connection to the token endpoint is lost: no eviction.
	"connection-lost": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Reset{}, Times: 1})
	},
	// IMDS knows no version 2.
	"no-version-2": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: imdstest.Respond{Status: http.StatusNotFound}})
	},
	// Something else answers at the address of IMDS.
	"not-imds": func(s *imdstest.Server) {
		portal := imdstest.Respond{Status: http.StatusOK, Header: http.Header{"Server": {"portal"}}, Body: "<html>Welcome"}
		s.Inject(imdstest.Fault{Endpoint: imdstest.Metadata, Do: portal})
		s.Inject(imdstest.Fault{Endpoint: imdstest.V1, Do: portal})
	},
	// IMDS certifies no key of this machine.
	"key-refused": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{Endpoint: imdstest.Issue, Do: imdstest.Respond{
			Status: http.StatusForbidden, Body: `{"error":"KeyNotAttested","error_description":"The key is not attested"}`,
		}})
	},
	// The token endpoint answers 503.
	"entra-down": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Respond{Status: http.StatusServiceUnavailable}})
	},
	// Entra does not know the identity (AADSTS700016).
	"unknown-identity": func(s *imdstest.Server) {
		s.Inject(imdstest.Fault{
			Endpoint: imdstest.Token, Do: imdstest.EntraError{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"},
		})
	},
}

// Faults returns the names of the faults that a simulated machine can have.
func Faults() []string { return slices.Sorted(maps.Keys(faults)) }

func (m *Machine) inject(name string) error {
	if name == "" {
		return nil
	}
	fault, known := faults[name]
	if !known {
		return fmt.Errorf("--fault %q is none of %s", name, strings.Join(Faults(), ", "))
	}
	fault(m.Server)
	return nil
}
