package mtls

import (
	"io"
	"net"
)

// losses are the errors of a connection that ended without a word: those of package io and net, and the system's own.
var losses = append([]error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed}, lossErrnos...)
