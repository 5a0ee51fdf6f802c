// Package azmtls authenticates Azure virtual machines to Entra over mutual TLS, with certificates that heal themselves.
//
// [ImdsV2MtlsCredential] is an azcore.TokenCredential. It asks the instance metadata service (IMDS v2) for a
// short-lived client certificate over a key that never leaves the machine, and gets tokens with it: ordinary bearer
// tokens, and, for clients bound with [ImdsV2MtlsCredential.BindClientOptions] or made by
// [ImdsV2MtlsCredential.Client], proof-of-possession tokens that are worthless without the certificate (RFC 8705). When
// the certificate goes bad, because its key was lost, corrupted or refused, the credential evicts it, gets a fresh one
// and tries once more.
//
// [ManagedIdentityCredential] is the same on machines with IMDS v2, and azidentity's credential of that name on all
// others: start with it.
//
// # Tokens
//
// A bearer token is good for whoever has it. A proof-of-possession token (token_type mtls_pop) carries the thumbprint
// of the certificate (cnf, x5t#S256) and is taken on connections that present it. [TokenTypeAuto] gets the latter for
// bound clients where Entra grants them. [ImdsV2MtlsCredential.GetBoundToken] gives token and certificate to what is
// neither an SDK client nor net/http.
//
// # Recovery
//
// A certificate, its key, the token endpoint and the client id are a binding. One table of evidence decides whether a
// failure speaks of it; nothing else evicts one. An eviction and its mint cost a unit of a budget, so that nobody can
// cause a loop of them. See the README and docs/evidence.md.
//
// # Time
//
// Nothing waits for ever: a token takes 5 minutes in all, a mint 4, and a caller waits no longer than its context
// says. Tokens are refreshed and certificates renewed in the background, by calls and never by timers.
//
// # Errors
//
// Where there is no IMDS v2 for this machine, errors are azidentity's credential-unavailable error, and a chain goes
// on. All others are an [AuthenticationError]. Those that the reader can do something about link to
// TROUBLESHOOTING.md.
//
// # Compatibility
//
// Until version 1.0 a minor version may change the API; CHANGELOG.md says how, and a patch version never does. From
// then on the promise is Go's: what compiles goes on compiling. Texts of errors and log lines are not part of it, nor
// is what internal packages have; typed values ([Stage], [Recovery], [Step], the JSON names of [Status]) are. The two
// versions of Go that Go supports are supported: 1.26 and 1.27 today.
package azmtls
