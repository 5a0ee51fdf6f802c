//go:build race

package azmtls_test

// stride is how many cells of the matrix lie between two that are tried: the race detector makes each ten times as slow. A run without
// it tries them all. It is a prime number, so that every dimension has its turn.
const stride = 11
