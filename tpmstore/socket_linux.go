package tpmstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// socket is a TPM behind a unix socket, as swtpm offers it.
type socket struct{ net.Conn }

func dialSocket(ctx context.Context, path string) (conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, explain(path, err)
	}
	return socket{c}, nil
}

func (s socket) close() { _ = s.Close() }

func (s socket) exchange(ctx context.Context, command []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	response, err := s.roundTrip(command)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("the TPM at %s: %w", s.RemoteAddr(), err)
	}
	return response, nil
}

// roundTrip reads the response piece by piece, as it may come.
func (s socket) roundTrip(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, headerSize, maxResponse)
	if _, err := io.ReadFull(s, response); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(response[2:])
	if size < headerSize || size > maxResponse {
		return nil, fmt.Errorf("it announced a response of %d bytes: is it a TPM 2.0?", size)
	}
	response = response[:size]
	_, err := io.ReadFull(s, response[headerSize:])
	return response, err
}
