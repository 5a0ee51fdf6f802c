package mtls

import "golang.org/x/sys/windows"

const connectionReset = windows.WSAECONNRESET
