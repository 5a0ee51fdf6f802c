package imdstest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
)

// Fault is something that goes wrong at one endpoint: an action at a stage. The two are independent; [Server.Inject]
// refuses the few pairs that make no sense.
type Fault struct {
	// Endpoint is where.
	Endpoint Endpoint
	// At is when the fault strikes. The zero value is AtRequest.
	At Stage
	// Do is what the fault does.
	Do Action

	// Thumbprint, when set, limits the fault to connections that present the certificate with this x5t#S256.
	Thumbprint string
	// Skip lets the first n calls pass.
	Skip int
	// Times limits how often the fault strikes. 0: until it is removed.
	Times int
	// Rate is the share of calls that the fault strikes, picked by a fixed seed. 0: all.
	Rate float64
}

// Action is what a fault does: one of the types of this package that say so.
type Action interface {
	// strike does it. An error means that the connection is no longer the server's.
	strike(*moment) error
	// misfit says why a fault with this action makes no sense. "": it does.
	misfit(Fault) string
}

// misfit says why a fault makes no sense, "" if it does.
func (f Fault) misfit() string {
	imds := f.Endpoint == Metadata || f.Endpoint == Issue || f.Endpoint == V1
	switch {
	case !imds && f.Endpoint != Token && f.Endpoint != Resource:
		return "there is no such endpoint"
	case f.At < AtRequest || f.At > AtBody:
		return "there is no such stage"
	case f.Do == nil:
		return "a fault needs an action"
	case imds && f.At.ofConnection():
		return "IMDS speaks plain HTTP, without a handshake"
	case imds && f.Thumbprint != "":
		return "IMDS speaks plain HTTP, without certificates"
	case f.Thumbprint != "" && (f.At == AtConnect || f.At == AtHello):
		return "no certificate is known at this stage, so the fault cannot be limited to one"
	case f.Skip < 0 || f.Times < 0:
		return "Skip and Times are counts of calls"
	case !(f.Rate >= 0 && f.Rate <= 1): // not a number, too
		return "Rate is a share, from 0 to 1"
	}
	return f.Do.misfit(f)
}

// Validate says why a fault makes no sense, nil if it does. Inject panics for one that does not.
func (f Fault) Validate() error {
	if reason := f.misfit(); reason != "" {
		return fmt.Errorf("imdstest: fault %T %s of endpoint %q: %s", f.Do, f.At, f.Endpoint, reason)
	}
	return nil
}

// injected is a fault and how often it came into question.
type injected struct {
	Fault
	calls, struck int
	dice          *rand.Rand
}

func (i *injected) concerns(endpoint Endpoint, at Stage, thumbprint string) bool {
	return i.Endpoint == endpoint && i.At == at && (i.Thumbprint == "" || i.Thumbprint == thumbprint)
}

func (i *injected) spent() bool { return i.Times > 0 && i.struck >= i.Times }

type faults struct {
	mu   sync.Mutex
	list []*injected
}

// Inject makes a fault happen from now on, until it is removed. Where several could strike at a stage, the one that
// was injected first does. Faults of AtConnect, AtHello and AtCertificate count connections, the others requests.
// Inject panics when a fault makes no sense: a stage of the handshake at IMDS, which speaks plain HTTP, a thumbprint
// before the certificate, a change of an answer before there is one, no action, no such endpoint; see [Fault.Validate].
func (s *Server) Inject(f Fault) (remove func()) {
	if err := f.Validate(); err != nil {
		panic(err.Error())
	}
	i := &injected{Fault: f, dice: rand.New(rand.NewPCG(1, 2))}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = append(slices.DeleteFunc(s.faults.list, (*injected).spent), i)
	return func() {
		s.faults.mu.Lock()
		defer s.faults.mu.Unlock()
		s.faults.list = slices.DeleteFunc(s.faults.list, func(other *injected) bool { return other == i })
	}
}

// Refuse makes token endpoint and resource refuse the certificate with this x5t#S256 from now on, by a TLS alert: for
// example 48, unknown_ca (RFC 8446, section 6). Connections that are open already go on.
func (s *Server) Refuse(thumbprint string, alert uint8) {
	for _, endpoint := range []Endpoint{Token, Resource} {
		s.Inject(Fault{Endpoint: endpoint, At: AtCertificate, Do: Alert(alert), Thumbprint: thumbprint})
	}
}

// next returns the action of the fault that strikes now, nil if none does.
func (f *faults) next(endpoint Endpoint, at Stage, thumbprint string) Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.list {
		if !i.concerns(endpoint, at, thumbprint) {
			continue
		}
		i.calls++
		if i.calls <= i.Skip || i.spent() || (i.Rate > 0 && i.dice.Float64() >= i.Rate) {
			continue
		}
		i.struck++
		return i.Do
	}
	return nil
}

// awaited reports whether a fault may still strike at this stage.
func (f *faults) awaited(endpoint Endpoint, at Stage, thumbprint string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.list, func(i *injected) bool {
		return i.concerns(endpoint, at, thumbprint) && !i.spent()
	})
}
