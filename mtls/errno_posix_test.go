//go:build !windows

package mtls

import "syscall"

const connectionReset = syscall.ECONNRESET
