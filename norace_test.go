//go:build !race

package azmtls_test

// stride is how many cells of the matrix lie between two that are tried: none.
const stride = 1
