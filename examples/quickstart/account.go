package main

import (
	"fmt"
	"io"
	"time"

	"github.com/azmtls/azmtls/imdstest"
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

func (a *account) counts(server *imdstest.Server) {
	c := server.Counts()
	a.detail("so far: %d mints, %d tokens, %d requests to the resource (%d of them retries)",
		c.Issued, c.TokenIssued, c.Resource+c.Faults, c.Faults)
}

// short shortens a thumbprint to what tells it from others.
func short(thumbprint string) string { return thumbprint[:min(len(thumbprint), 6)] + "…" }
