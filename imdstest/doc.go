// Package imdstest simulates what an Azure VM with a managed identity talks to, in the process of a test and on loopback: the
// instance metadata service (IMDS v2 and v1), Entra's mTLS token endpoint and a protected resource. It is to them what
// net/http/httptest is to http.
//
// A credential of azidentity, which asks IMDS v1, reaches it with [Server.ClientOptions] too. MSAL keeps the tokens of
// v1 for the whole process, whoever gave them: tests of it need scopes of their own.
//
// The simulator is strict. It refuses what the real services refuse, down to the bytes of a certificate request, and
// [Server.Rejections] says why. Its certificates and tokens are real: the token endpoint and the resource demand a client
// certificate of the simulator's authority, and a proof-of-possession token is accepted only on a connection with the
// certificate it is bound to (RFC 8705). [Server.Inject] makes it fail in all the ways that networks and servers fail.
//
// Give a credential under test a KeyProvider, a Store and a Cache of its own, [mtls.SoftwareKeys], [mtls.NoStore] and a
// new [mtls.Cache] for instance: the default store is the user's, where the certificate of a real machine may lie, and
// the default provider would make a key in the TPM of the machine that runs the test.
package imdstest
