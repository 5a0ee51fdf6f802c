package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
)

// account writes what happens, step by step, with the time since the start.
type account struct {
	io.Writer
	start time.Time
	steps int
}

func (a *account) step(format string, args ...any) {
	a.steps++
	fmt.Fprintf(a, "%2d  %6.3f s  %s\n", a.steps, time.Since(a.start).Seconds(), fmt.Sprintf(format, args...))
}

func (a *account) detail(format string, args ...any) {
	fmt.Fprintf(a, "    %6.3f s    %s\n", time.Since(a.start).Seconds(), fmt.Sprintf(format, args...))
}

func (a *account) counts(server *imdstest.Server, store *countingStore) {
	c := server.Counts()
	a.detail("so far: %d mints, %d evictions, %d tokens, %d requests to the resource (%d of them retries)",
		c.Issued, store.evictions, c.TokenIssued, c.Resource+c.Faults, c.Faults)
}

// countingStore keeps the latest binding, as a real store would beyond the process, and counts evictions.
type countingStore struct {
	latest    *mtls.Binding
	evictions int
}

func (s *countingStore) Load(context.Context, string) (*mtls.Binding, error) {
	if s.latest == nil {
		return nil, mtls.ErrNotFound
	}
	return s.latest, nil
}

func (s *countingStore) Save(_ context.Context, _ string, b *mtls.Binding) error {
	s.latest = b
	return nil
}

func (s *countingStore) DeleteAll(context.Context, string) error {
	s.latest = nil
	s.evictions++
	return nil
}
