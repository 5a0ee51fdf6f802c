//go:build race || windows

package azmtls_test

// stride is how far apart the cells of the matrix are that are tried: the race detector, and Wine, make each one slow.
// A run without them tries them all. It is a prime number, so that every dimension has its turn.
const stride = 59
