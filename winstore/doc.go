// Package winstore keeps bindings where Windows keeps certificates and keys: [Store] is CurrentUser\My, [Keys] are keys
// of CNG, isolated by virtualization-based security or in a TPM where the machine has that. Both are the defaults of
// azmtls on Windows. What is stored is byte-compatible with MSAL.NET, so that a Go and a .NET process of one user share
// one binding.
//
// On other systems everything here returns an error that says so, and that is errors.ErrUnsupported.
package winstore
