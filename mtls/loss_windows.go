package mtls

import "golang.org/x/sys/windows"

// lossErrnos are the system errors of a lost connection. Winsock has its own: syscall.ECONNRESET never matches them.
var lossErrnos = []error{windows.WSAECONNRESET, windows.WSAECONNABORTED, windows.WSAESHUTDOWN, windows.ERROR_BROKEN_PIPE, windows.ERROR_NETNAME_DELETED}
