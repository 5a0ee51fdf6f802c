package imdstest

import (
	"fmt"
	"slices"
	"sync"
)

// Counts says how often things have happened.
type Counts struct {
	Metadata, Issue, V1, Token, Resource    int // requests, refused ones and those that a fault struck included
	IssueBypass                             int // requests to Issue with bypass_cache, counted by Issue as well
	Issued, TokenIssued, ResourceAuthorized int // requests that got what they asked for
	V1Issued                                int // tokens of IMDS v1
	TokenConnections, ResourceConnections   int // TLS connections on which a client certificate was presented
	Faults                                  int // faults that struck
}

// Rejection is a request that the real service would refuse as well.
type Rejection struct {
	Endpoint Endpoint // that the request was for
	Reason   string   // what is wrong with it
}

func (r Rejection) String() string { return fmt.Sprintf("%s: %s", r.Endpoint, r.Reason) }

type counters struct {
	mu         sync.Mutex
	counts     Counts
	presented  map[string]int
	rejections []Rejection
	expected   []Rejection // their reasons are parts of those that come
}

// Counts returns what has happened so far.
func (s *Server) Counts() Counts {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return s.counters.counts
}

// Presented returns how many connections, to the token endpoint and the resource, presented the certificate with this
// x5t#S256.
func (s *Server) Presented(thumbprint string) int {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return s.counters.presented[thumbprint]
}

// maxRejections is how many are kept.
const maxRejections = 10_000

// Rejections returns the requests that were not as the real services demand, in order, the first 10,000 of them. It is
// empty after a correct run.
func (s *Server) Rejections() []Rejection {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return slices.Clone(s.counters.rejections)
}

func (s *Server) count(change func(*Counts)) {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	change(&s.counters.counts)
}

func (s *Server) countPresented(endpoint Endpoint, thumbprint string) {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	if s.counters.presented == nil {
		s.counters.presented = map[string]int{}
	}
	s.counters.presented[thumbprint]++
	if endpoint == Token {
		s.counters.counts.TokenConnections++
	} else {
		s.counters.counts.ResourceConnections++
	}
}

func (s *Server) reject(endpoint Endpoint, reason string) {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	if len(s.counters.rejections) < maxRejections {
		s.counters.rejections = append(s.counters.rejections, Rejection{endpoint, reason})
	}
}
