package imds

import (
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// ID says which identity is meant. The zero value is the system-assigned one.
type ID struct {
	Param string // "client_id", "mi_res_id" or "object_id"
	Value string
}

// IDOf returns how IMDS is told which identity is meant, nil for the system-assigned one. The error is for the user who
// configured it.
func IDOf(kind azidentity.ManagedIDKind) (ID, error) {
	var id ID
	switch kind := kind.(type) {
	case nil:
		return id, nil
	case azidentity.ClientID:
		id = ID{Param: "client_id", Value: string(kind)}
	case azidentity.ObjectID:
		id = ID{Param: "object_id", Value: string(kind)}
	case azidentity.ResourceID:
		id = ID{Param: "mi_res_id", Value: string(kind)}
	default:
		return id, fmt.Errorf("ID: %T is none of azidentity.ClientID, azidentity.ObjectID and azidentity.ResourceID", kind)
	}
	if id.Value == "" {
		return id, fmt.Errorf("ID: the %T is empty; leave ID nil for the system-assigned identity", kind)
	}
	if strings.ContainsAny(id.Value, "|\r\n\x00") {
		return id, errors.New("ID: the id contains a character that no identity's id has: '|', CR, LF or NUL")
	}
	return id, nil
}

// systemAssigned stands for the identity's id in the alias of the system-assigned identity, as in MSAL.NET.
const systemAssigned = "system_assigned_managed_identity"

// Alias returns the name of the identity in memory and store. Whether its keys are attested is a part of it.
func (id ID) Alias(attested bool) string {
	name, suffix := id.Value, 0
	if name == "" {
		name = systemAssigned
	}
	if attested {
		suffix = 1
	}
	return fmt.Sprintf("%s#att=%d", name, suffix)
}
