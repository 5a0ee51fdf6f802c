//go:build !windows

package mtls_test

import "syscall"

const connectionReset = syscall.ECONNRESET
