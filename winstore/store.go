package winstore

// Store is an [mtls.Store] in the certificate store CurrentUser\My, shared by all processes of the user and
// byte-compatible with MSAL.NET. A certificate carries its alias and token endpoint in the friendly name,
// MSAL|alias=<alias>|ep=<endpoint>, and the name of its key's container. Only bindings whose key Windows keeps, as
// those of [Keys], can be saved. Changes are made under a mutex per alias that MSAL.NET uses too; when it is not free
// within 300 ms they are not made, and the error says so.
type Store struct{}
