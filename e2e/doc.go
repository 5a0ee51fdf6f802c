// Package e2e runs real SDK clients with the credential against real servers. It is a module of its own, so that none
// of what it needs is a dependency of the library.
package e2e
