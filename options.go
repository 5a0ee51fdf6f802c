package azmtls

import (
	"fmt"
	"net/http"
	"reflect"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/azmtls/azmtls/internal/platform"
	"github.com/azmtls/azmtls/internal/template"
	"github.com/azmtls/azmtls/mtls"
)

// TokenType says which tokens a credential gets.
type TokenType int

const (
	// TokenTypeAuto, the zero value, gets proof-of-possession tokens for clients that were bound with
	// [ImdsV2MtlsCredential.BindClientOptions] and bearer tokens for all others, both over mutual TLS. For a resource
	// that does not support bound tokens it gets bearer tokens.
	TokenTypeAuto TokenType = iota
	// TokenTypeMtlsPoP gets proof-of-possession tokens only, and fails where there are none. A client that was not bound
	// cannot use them: azcore sends every token with the scheme Bearer.
	TokenTypeMtlsPoP
	// TokenTypeBearer gets ordinary bearer tokens only, over mutual TLS.
	TokenTypeBearer
)

// String returns the name of the type, for logs and errors.
func (t TokenType) String() string {
	switch t {
	case TokenTypeAuto:
		return "Auto"
	case TokenTypeMtlsPoP:
		return "MtlsPoP"
	case TokenTypeBearer:
		return "Bearer"
	default:
		return fmt.Sprintf("TokenType(%d)", int(t))
	}
}

// ImdsV2MtlsCredentialOptions contains optional parameters for [NewImdsV2MtlsCredential].
type ImdsV2MtlsCredentialOptions struct {
	// ClientOptions serves the requests to IMDS and Entra. Its Transport serves those to IMDS only, and its Retry those to
	// Entra only: IMDS has retry rules of its own. Request bodies are never logged, whatever Logging says.
	azcore.ClientOptions

	// ID is the user-assigned managed identity to authenticate: an azidentity.ClientID, azidentity.ObjectID or
	// azidentity.ResourceID. Nil is the machine's system-assigned identity.
	ID azidentity.ManagedIDKind

	// TokenType says which tokens to get. The default is [TokenTypeAuto].
	TokenType TokenType

	// MinBindingStrength is the weakest key that is acceptable. A weaker one is refused before any network call, and a
	// stored binding with a weaker one is not used.
	MinBindingStrength mtls.BindingStrength

	// KeyProvider provides the keys of certificates. Nil is the strongest provider that the platform has: winstore.Keys on
	// Windows, tpmstore.Keys on Linux, [mtls.SoftwareKeys] elsewhere.
	KeyProvider mtls.KeyProvider

	// Store keeps certificates beyond the life of the process. Nil is the store of the platform: winstore.Store
	// (CurrentUser\My) on Windows, tpmstore.Store (a folder, for keys in a TPM) on Linux, [mtls.NoStore] elsewhere. As
	// with MSAL, the environment variable MSAL_MI_DISABLE_PERSISTENT_CERT_CACHE (1 or true) makes that [mtls.NoStore]; a
	// Store that is given here is used all the same.
	Store mtls.Store

	// Attestation proves to IMDS what holds the key. Nil: certificates are requested without attestation.
	Attestation mtls.AttestationProvider

	// MTLSTransport is the template for connections over mutual TLS, to Entra and to resources: proxy, RootCAs, dialer and
	// timeouts. It is cloned for every certificate, and must have a TLSClientConfig. Nil stands for the defaults of
	// net/http.
	MTLSTransport *http.Transport

	// Cache keeps certificates in memory. Nil is one that all credentials of the process share, so that those for the same
	// identity use the same certificate.
	Cache *mtls.Cache

	// Observer gets the steps of the credential, in order and as soon as nobody waits for them any more, so that it may
	// ask the credential for a token: for metrics and logs of other kinds than azcore's ([LogEvents]). It is called by
	// whoever took the step, so it should be quick, and it may be called by several at once. What credentials for the same
	// identity share is told to the one whose call began it. A panic in it is logged.
	Observer func(Event)
}

// check refuses options that cannot work.
func (o *ImdsV2MtlsCredentialOptions) check() error {
	if o.TokenType < TokenTypeAuto || o.TokenType > TokenTypeBearer {
		return fmt.Errorf("TokenType: %s is none of TokenTypeAuto, TokenTypeMtlsPoP and TokenTypeBearer", o.TokenType)
	}
	if o.MinBindingStrength < mtls.StrengthNone || o.MinBindingStrength > mtls.StrengthKeyGuard {
		return fmt.Errorf("MinBindingStrength: %s is no strength that a key can have", o.MinBindingStrength)
	}
	if err := template.Check(o.MTLSTransport); err != nil {
		return fmt.Errorf("MTLSTransport: %w", err)
	}
	return nil
}

// setDefaults fills in what the caller left open.
func (o *ImdsV2MtlsCredentialOptions) setDefaults() {
	o.Logging.IncludeBody = false // bodies hold certificate requests and tokens
	o.APIVersion = ""             // is for the services of SDK clients
	if o.KeyProvider == nil {
		o.KeyProvider = platform.Keys()
	}
	if o.Store == nil {
		o.Store = defaultStore()
	}
	if o.Cache == nil {
		o.Cache = &sharedCache
	}
	if o.MTLSTransport != nil {
		o.MTLSTransport = o.MTLSTransport.Clone() // what the caller does to it later is not ours
	}
	// A provider or store that == cannot compare is taken for different from all others.
	if !reflect.ValueOf(o.KeyProvider).Comparable() {
		o.KeyProvider = &struct{ mtls.KeyProvider }{o.KeyProvider}
	}
	if !reflect.ValueOf(o.Store).Comparable() {
		o.Store = &struct{ mtls.Store }{o.Store}
	}
}

// defaultStore is the platform's, unless whoever runs the machine has switched that off, for us and for MSAL.
func defaultStore() mtls.Store {
	if platform.StoreIsSwitchedOff() {
		return mtls.NoStore{}
	}
	return platform.Store()
}

// sharedCache is the Cache of all credentials that were given none.
var sharedCache mtls.Cache
