// Package imdstest simulates what an Azure VM with a managed identity talks to, in the process of a test and on
// loopback: the instance metadata service (IMDS v2 and v1), Entra's mTLS token endpoint and a protected resource. It is
// to them what net/http/httptest is to http.
//
// A credential of azidentity, which asks IMDS v1, reaches it with [Server.ClientOptions] too. MSAL keeps the tokens of
// v1 for the whole process, whoever gave them: tests of it need scopes of their own.
//
// The simulator is strict. It refuses what the real services refuse, down to the bytes of a certificate request, and
// [Server.Rejections] says why. Its certificates and tokens are real: the token endpoint and the resource demand a
// client certificate of the simulator's authority, and a proof-of-possession token is accepted only on a connection
// with the certificate it is bound to (RFC 8705). [Server.Inject] makes it fail in all the ways that networks and
// servers fail.
//
// A test of a program that is given its credential has a machine in five lines:
//
//	server := imdstest.New(t, nil)
//	cred, err := azmtls.NewImdsV2MtlsCredential(server.CredentialOptions())
//	require.NoError(t, err)
//	defer cred.Close()
//	server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: imdstest.Reset{}, Times: 1}) // or any other mishap
//
// [Server.CredentialOptions] has a key provider, a store and a cache of its own: the default store is the user's, where
// the certificate of a real machine may lie, the default provider would make a key in the TPM of the machine that
// runs the test, and the default cache is the whole process's. With [Options.Clock] one clock moves server and
// credential.
package imdstest
