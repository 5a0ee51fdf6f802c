package flight

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// stage is what some work waits for at the moment: by name, or by the flight that it waits for.
type stage struct {
	mu    sync.Mutex
	name  string
	since time.Time
	inner *stage
}

type stageKey struct{}

// Enter notes what the work of a flight goes on to wait for, for example "IMDS to issue a certificate": those who stop waiting for
// the flight are told.
func Enter(ctx context.Context, name string) {
	if s, ok := ctx.Value(stageKey{}).(*stage); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.name, s.since = name, time.Now()
	}
}

// await notes that the work in whose context another flight is waited for is in the stage of that flight.
func await(ctx context.Context, inner *stage) (done func()) {
	s, ok := ctx.Value(stageKey{}).(*stage)
	if !ok {
		return func() {}
	}
	set := func(to *stage) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inner = to
	}
	set(inner)
	return func() { set(nil) }
}

// current returns the innermost stage, and since when it lasts.
func (s *stage) current() (name string, since time.Time) {
	s.mu.Lock()
	inner, name, since := s.inner, s.name, s.since
	s.mu.Unlock()
	if inner != nil {
		if name, since := inner.current(); name != "" {
			return name, since
		}
	}
	return name, since
}

// giveUp returns the error of a caller who stopped waiting.
func (s *stage) giveUp(cause error) error {
	name, since := s.current()
	if name == "" {
		return cause
	}
	return fmt.Errorf("waiting for %s, for %s: %w", name, time.Since(since).Round(100*time.Millisecond), cause)
}
