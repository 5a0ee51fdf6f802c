package imdstest

import (
	"slices"
	"strings"
	"testing"
)

// New starts a [Server] for a test, and closes it when the test ends. Nil options are the default ones. A request that
// was not as the real services demand fails the test then, unless the test said by [Server.ExpectRejection] that it
// would send one; so does one that it said and did not send.
func New(t testing.TB, options *Options) *Server {
	t.Helper()
	s := NewServer(options)
	t.Cleanup(func() {
		t.Helper()
		s.Close()
		for _, r := range s.unexpected() {
			t.Errorf("imdstest: the real service would refuse a request as well: %s", r)
		}
		for _, r := range s.missing() {
			t.Errorf("imdstest: a request was to be rejected, and none was: %s", r)
		}
	})
	return s
}

// ExpectRejection says that the test sends a request to the endpoint that is rejected for a reason that contains the
// text. It is for servers of [New].
func (s *Server) ExpectRejection(endpoint Endpoint, reason string) {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	s.counters.expected = append(s.counters.expected, Rejection{endpoint, reason})
}

// unexpected returns the rejections that the server was not told of.
func (s *Server) unexpected() []Rejection {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.counters.rejections), func(r Rejection) bool {
		return slices.ContainsFunc(s.counters.expected, r.is)
	})
}

// missing returns the rejections that the server was told of and that did not come.
func (s *Server) missing() []Rejection {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.counters.expected), func(expected Rejection) bool {
		return slices.ContainsFunc(s.counters.rejections, func(r Rejection) bool { return r.is(expected) })
	})
}

// is reports whether the rejection is one that was expected.
func (r Rejection) is(expected Rejection) bool {
	return r.Endpoint == expected.Endpoint && strings.Contains(r.Reason, expected.Reason)
}
