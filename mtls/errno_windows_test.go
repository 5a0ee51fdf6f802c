package mtls_test

import "golang.org/x/sys/windows"

const connectionReset = windows.WSAECONNRESET
