// Package azmtls authenticates Azure virtual machines to Entra over mutual TLS, with certificates that heal themselves.
//
// [ImdsV2MtlsCredential] is an azcore.TokenCredential. It asks the instance metadata service (IMDS v2) for a short-lived
// client certificate over a key that never leaves the machine, and gets tokens with it: ordinary bearer tokens, and, for clients
// bound with [ImdsV2MtlsCredential.BindClientOptions] or made by [ImdsV2MtlsCredential.Client], proof-of-possession tokens
// that are worthless without the certificate (RFC 8705). When the certificate goes bad, because its key was lost, corrupted
// or refused, the credential evicts it, gets a fresh one and tries once more.
//
// [ManagedIdentityCredential] is the same on machines with IMDS v2, and azidentity's credential of that name on all
// others: start with it.
package azmtls
