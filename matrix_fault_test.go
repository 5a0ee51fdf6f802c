package azmtls_test

import (
	"context"
	"crypto/tls"
	"slices"

	"github.com/azmtls/azmtls/imdstest"
)

// fault is one thing that goes wrong: what it is by the design's table, and how it comes about.
type fault struct {
	subject  string // chapter of the table
	name, at string // what it is, and at which stage; at is empty where there is but one

	means       func(cell) meaning
	key         keyFate           // what becomes of the key when it strikes
	attestation bool              // it is about the attestation: the next mint bypasses IMDS's cache
	omit        func(cell) string // why a cell makes no sense, besides the general reasons

	legs             []leg // nil: all
	perConnection    bool  // it strikes while a connection is opened
	blind            bool  // it strikes whatever the certificate
	processed        bool  // the server has processed the request that it strikes
	mayFailToConnect bool  // a client may see it as a connection that did not come about

	// How it comes about: one of these.
	inject imdstest.Fault   // Endpoint, Thumbprint and Times are the cell's
	sign   func(*run) error // before a signature
	proxy  func() error     // instead of a proxy
	dial   func() error     // instead of a connection
	body   func() error     // half-way through the request's body

	impostor func(*impostorCertificates) tls.Certificate // another server instead of the one that was asked for

	unasked  bool // the request does not ask Key Vault for the certificate
	recreate bool // the identity is made anew when the fault is armed: the metadata names another client
}

// as is the meaning that a fault has everywhere.
func as(m meaning) func(cell) meaning { return func(cell) meaning { return m } }

// atResource gives a fault a meaning of its own at resources.
func atResource(there, atToken meaning) func(cell) meaning {
	return func(c cell) meaning {
		if c.leg == legToken {
			return atToken
		}
		return there
	}
}

// stageNames are the stages of imdstest, as the table calls them.
var stageNames = map[imdstest.Stage]string{
	imdstest.AtConnect:     "at the connection",
	imdstest.AtHello:       "at the ClientHello",
	imdstest.AtCertificate: "at the certificate",
	imdstest.AtRequest:     "at the request",
	imdstest.AtAnswer:      "before the answer",
	imdstest.AtBody:        "in the answer",
}

var stages = []imdstest.Stage{
	imdstest.AtConnect, imdstest.AtHello, imdstest.AtCertificate,
	imdstest.AtRequest, imdstest.AtAnswer, imdstest.AtBody,
}

// injected returns a fault of the simulator.
func injected(subject, name string, at imdstest.Stage, do imdstest.Action, means func(cell) meaning) *fault {
	return &fault{
		subject: subject, name: name, at: stageNames[at], means: means, inject: imdstest.Fault{At: at, Do: do},
		perConnection: at == imdstest.AtConnect || at == imdstest.AtHello || at == imdstest.AtCertificate,
		blind:         at == imdstest.AtConnect || at == imdstest.AtHello,
		processed:     at == imdstest.AtAnswer || at == imdstest.AtBody,
	}
}

// said is a fault of the simulator whose answer is given instead of serving the request: which that is needs no column.
func said(subject, name string, do imdstest.Action, means func(cell) meaning, legs ...leg) *fault {
	f := injected(subject, name, imdstest.AtRequest, do, means)
	f.at, f.legs = "", legs
	return f
}

// expiring is a context whose deadline passes when a test wants it to.
type expiring struct {
	context.Context
	done chan struct{}
}

func (e *expiring) Done() <-chan struct{} { return e.done }

func (e *expiring) Err() error {
	select {
	case <-e.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// inOrder says where a chapter's faults stand in the report: as they were made.
func inOrder(faults []*fault, f *fault) int { return slices.Index(faults, f) }
