package imdstest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// FaultKind says what a fault does.
type FaultKind int

const (
	// KindResetBeforeCertificate resets the connection after the ClientHello.
	KindResetBeforeCertificate FaultKind = iota + 1
	// KindEOFBeforeCertificate closes the connection after the ClientHello.
	KindEOFBeforeCertificate
	// KindResetInHandshake resets the connection when the server has seen the client certificate. In TLS 1.3 the client has
	// finished its handshake by then.
	KindResetInHandshake
	// KindEOFInHandshake closes the connection when the server has seen the client certificate.
	KindEOFInHandshake
	// KindHangInHandshake leaves the handshake hanging after the ClientHello.
	KindHangInHandshake
	// KindAlert sends the TLS alert Fault.Alert when the server has seen the client certificate.
	KindAlert
	// KindResetAfterHandshake resets the connection when the request was read, without a byte of response.
	KindResetAfterHandshake
	// KindEOFAfterHandshake closes the connection when the request was read, without a byte of response.
	KindEOFAfterHandshake
	// KindResetMidBody resets the connection after the response header and a part of the body.
	KindResetMidBody
	// KindHang reads the request and never answers.
	KindHang
	// KindRespond answers with Status, RetryAfter, Header and Body.
	KindRespond
	// KindEntraError answers with an error of Entra: OAuthError and AADSTS. 401 for invalid_client, else 400.
	KindEntraError
	// KindMalformed answers 200 with broken JSON.
	KindMalformed
	// KindOversized answers 200 with more than 1 MiB.
	KindOversized
	// KindEdit lets Edit change the JSON object that would have been the answer.
	KindEdit
	// KindRedirect answers 307, to the same host.
	KindRedirect
	// KindForeignKey issues a certificate for another key than the one in the request.
	KindForeignKey
	// KindWrongServer answers like KindEdit without an Edit, but with a Server header that is not IMDS's.
	KindWrongServer
)

// Fault is something that goes wrong at one endpoint.
type Fault struct {
	Endpoint Endpoint
	Kind     FaultKind

	Alert              uint8                // of KindAlert
	Status             int                  // of KindRespond
	RetryAfter         time.Duration        // of KindRespond, rounded up to seconds; 0: no header
	Header             http.Header          // of KindRespond
	Body               string               // of KindRespond
	OAuthError, AADSTS string               // of KindEntraError, for example "invalid_client" and "AADSTS700027"
	Edit               func(map[string]any) // of KindEdit

	// Thumbprint, when set, limits the fault to connections that present the certificate with this x5t#S256.
	Thumbprint string
	// Skip lets the first n calls pass.
	Skip int
	// Times limits how often the fault strikes. 0: until it is removed.
	Times int
	// Rate is the share of calls that the fault strikes, picked by a fixed seed. 0: all.
	Rate float64
}

// stage is when a fault strikes.
type stage int

const (
	onHello       stage = iota // ClientHello read
	onCertificate              // client certificate seen
	onRequest                  // request read
)

func (k FaultKind) stage() stage {
	switch k {
	case KindResetBeforeCertificate, KindEOFBeforeCertificate, KindHangInHandshake:
		return onHello
	case KindResetInHandshake, KindEOFInHandshake, KindAlert:
		return onCertificate
	default:
		return onRequest
	}
}

// injected is a fault and how often it came into question.
type injected struct {
	Fault
	calls, struck int
	dice          *rand.Rand
}

type faults struct {
	mu   sync.Mutex
	list []*injected
}

// Inject makes a fault happen from now on, until it is removed. Where several could strike, the one that was injected first
// does. Faults of the handshake count connections, the others requests. Inject panics when a fault makes no sense: a
// handshake fault of IMDS, which speaks plain HTTP, a fault before the certificate that is limited to one, no kind, no endpoint.
func (s *Server) Inject(f Fault) (remove func()) {
	switch {
	case f.Kind < KindResetBeforeCertificate || f.Kind > KindWrongServer:
		panic(fmt.Sprintf("imdstest: fault of unknown kind %d", f.Kind))
	case !slices.Contains([]Endpoint{Metadata, Issue, Token, Resource}, f.Endpoint):
		panic(fmt.Sprintf("imdstest: fault of unknown endpoint %q", f.Endpoint))
	case f.Kind == KindEdit && f.Edit == nil:
		panic("imdstest: KindEdit needs an Edit function")
	case (f.Endpoint == Metadata || f.Endpoint == Issue) && (f.Kind.stage() != onRequest || f.Thumbprint != ""):
		panic("imdstest: IMDS speaks plain HTTP: a fault of it has no handshake and no certificate")
	case f.Kind.stage() == onHello && f.Thumbprint != "":
		panic("imdstest: a fault before the certificate cannot be limited to one")
	}
	i := &injected{Fault: f, dice: rand.New(rand.NewPCG(1, 2))}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = append(s.faults.list, i)
	return func() {
		s.faults.mu.Lock()
		defer s.faults.mu.Unlock()
		s.faults.list = slices.DeleteFunc(s.faults.list, func(other *injected) bool { return other == i })
	}
}

// Refuse makes token endpoint and resource refuse the certificate with this x5t#S256 from now on, by a TLS alert: for example
// 48, unknown_ca (RFC 8446, section 6). Connections that are open already go on.
func (s *Server) Refuse(thumbprint string, alert uint8) {
	for _, endpoint := range []Endpoint{Token, Resource} {
		s.Inject(Fault{Endpoint: endpoint, Kind: KindAlert, Alert: alert, Thumbprint: thumbprint})
	}
}

// strike returns the fault that strikes now, nil if none does.
func (f *faults) strike(s *Server, endpoint Endpoint, thumbprint string, at stage) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.list {
		if i.Endpoint != endpoint || i.Kind.stage() != at || (i.Thumbprint != "" && i.Thumbprint != thumbprint) {
			continue
		}
		i.calls++
		if i.calls <= i.Skip || (i.Times > 0 && i.struck >= i.Times) || (i.Rate > 0 && i.dice.Float64() >= i.Rate) {
			continue
		}
		i.struck++
		s.count(func(c *Counts) { c.Faults++ })
		fault := i.Fault
		return &fault
	}
	return nil
}
