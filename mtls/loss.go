package mtls

import (
	"errors"
	"io"
	"net"
	"slices"
)

// isLoss reports that the connection ended without a word: reset, broken pipe, closed or at its end.
func isLoss(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		slices.ContainsFunc(lossErrnos, func(errno error) bool { return errors.Is(err, errno) })
}
