//go:build !race && !windows

package azmtls_test

// stride is how far apart the cells of the matrix are that are tried.
const stride = 1
