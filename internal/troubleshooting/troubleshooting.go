// Package troubleshooting names the sections of TROUBLESHOOTING.md that errors, and the findings of the doctor, lead
// to.
package troubleshooting

// Anchor is that of a section.
type Anchor string

// The sections.
const (
	Elsewhere       Anchor = "not-a-vm"
	Unreachable     Anchor = "imds-unreachable"
	NotIMDS         Anchor = "not-imds"
	NoVersion2      Anchor = "no-version-2"
	NoIdentity      Anchor = "no-identity"
	NotCertified    Anchor = "key-not-certified"
	Throttled       Anchor = "throttled"
	Ill             Anchor = "ill"
	Keys            Anchor = "keys"
	Stored          Anchor = "stored-bindings"
	Refused         Anchor = "refused"
	TokenEndpoint   Anchor = "token-endpoint"
	Clock           Anchor = "clock"
	UnknownIdentity Anchor = "unknown-identity"
	UnknownResource Anchor = "unknown-resource"
	Policy          Anchor = "conditional-access"
	NoBoundTokens   Anchor = "no-bound-tokens"
	NoToken         Anchor = "no-token"
)

// Anchors are all of them.
var Anchors = []Anchor{
	Elsewhere, Unreachable, NotIMDS, NoVersion2, NoIdentity, NotCertified, Throttled, Ill, Keys, Stored, Refused,
	TokenEndpoint, Clock, UnknownIdentity, UnknownResource, Policy, NoBoundTokens, NoToken,
}

// URL returns where the section is.
func (a Anchor) URL() string {
	return "https://github.com/azmtls/azmtls/blob/main/TROUBLESHOOTING.md#" + string(a)
}
