// Package tpmstore keeps bindings where Linux can: [Keys] are keys in a TPM 2.0, [Store] is a folder of files whose
// private keys only that TPM can use. Both are the defaults of azmtls on Linux; a machine without a TPM, or a process
// that may not use it, gets software keys in memory instead.
//
// On other systems everything here returns an error that says so, and that is errors.ErrUnsupported.
package tpmstore
