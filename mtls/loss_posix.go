//go:build !windows

package mtls

import "syscall"

// lossErrnos are the system errors of a lost connection.
var lossErrnos = []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED}
