// Package mtls holds what a mutual-TLS credential is made of and what mends it.
//
// A [Binding] is a short-lived certificate with its key, the token endpoint it is good for and the client id it speaks
// for. A [Cache] keeps bindings in memory over a [Store] and mints what is missing. A [Transport] sends requests over
// the connections of one binding and tells a failure of the binding from a failure of the network: one table of
// evidence decides. A [RecoveryPolicy] turns a [Refusal] into an eviction and one more try.
//
// Most programs use the credential in the parent package and meet this one through its options: [KeyProvider],
// [Store], [AttestationProvider] and [BindingStrength].
package mtls
