package mtls

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// lossErrnos are the system errors of a lost connection. Winsock has its own; those that package syscall names as POSIX
// does come from connections that are not the system's.
var lossErrnos = []error{
	windows.WSAECONNRESET, windows.WSAECONNABORTED, windows.WSAESHUTDOWN, windows.ERROR_BROKEN_PIPE,
	windows.ERROR_NETNAME_DELETED,
	syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED,
}
