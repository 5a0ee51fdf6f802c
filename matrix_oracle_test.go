package azmtls_test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// meaning is what a fault is in the words of the design's table of evidence.
type meaning int

const (
	passes     meaning = iota // nothing comes of it: the request is served
	answers                   // an answer that is no refusal of the binding, and no success
	succeeds                  // an answer of success, whatever is in it
	silent                    // no evidence, and no try after it
	refuses                   // the peer refuses the binding and has not processed the request
	keyIsDead                 // the key failed to sign, and does so when probed
	keyHiccups                // the key failed to sign, and signs when probed
	keyNotNow                 // the key says that it cannot sign at this moment
	lossBefore                // the connection is lost before our certificate was sent
	lossInside                // it is lost in the handshake, after that
	lossAfter                 // it is lost after the handshake, before the first byte of the answer
)

// mayEvict reports whether a fault of this meaning can cost a binding.
func (m meaning) mayEvict() bool {
	return slices.Contains([]meaning{refuses, keyIsDead, lossInside, lossAfter}, m)
}

// maxCalls is how often the caller sends a request whose loss is left to the caller to repeat: the first loss, its
// confirmation, and the try after the eviction.
const maxCalls = 3

// calls returns how often the caller sends the request until it succeeds. POST is repeated by its caller alone.
func (c cell) calls() int {
	if c.leg == legPOST && c.fault.means(c) == lossAfter {
		return maxCalls
	}
	return 1
}

// outcome is what comes of one call.
type outcome struct {
	result                    string // ok, answer (of another status), error, refusal (a *mtls.Refusal)
	evicted, minted, bypassed int    // bypassed: of the mints, those that bypass IMDS's cache
	processed                 int    // requests that the server processed
}

func (o outcome) String() string {
	text := o.result
	if o.evicted+o.minted > 0 {
		text += fmt.Sprintf(", %d evicted, %d minted", o.evicted, o.minted)
	}
	if o.bypassed > 0 {
		text += " past IMDS's cache"
	}
	return fmt.Sprintf("%s, processed %d", text, o.processed)
}

func account(outcomes []outcome) string {
	texts := make([]string, len(outcomes))
	for i, o := range outcomes {
		texts[i] = o.String()
	}
	return strings.Join(texts, "; then ")
}

// oracle returns everything that the design lets come of a cell. There are several only where the design leaves a
// choice, or where it is a race on the wire.
func oracle(c cell) (all [][]outcome) {
	ways := &choices{}
	for {
		m := &model{cell: c, choices: ways, units: 1, accepted: c.conn != fresh, idle: c.conn == reused}
		var outcomes []outcome
		for range c.calls() {
			o := m.call()
			outcomes = append(outcomes, o)
			if o.result == "ok" {
				break
			}
		}
		if !slices.ContainsFunc(all, func(o []outcome) bool { return slices.Equal(o, outcomes) }) {
			all = append(all, outcomes)
		}
		if !ways.advance() {
			return all
		}
	}
}

// choices goes through all ways that a model can take.
type choices struct {
	made []bool
	next int
}

func (c *choices) choose() bool {
	if c.next == len(c.made) {
		c.made = append(c.made, false)
	}
	c.next++
	return c.made[c.next-1]
}

// advance goes on to the next way. It returns false when there is none.
func (c *choices) advance() bool {
	c.next = 0
	for last := len(c.made) - 1; last >= 0; last-- {
		if !c.made[last] {
			c.made[last] = true
			return true
		}
		c.made = c.made[:last]
	}
	return false
}

// model is the design of recovery (sections 5.1 to 5.3), and nothing but it.
type model struct {
	cell
	*choices
	struck   int
	replaced bool    // the binding at hand is not the one that the fault began with
	missing  bool    // there is no binding at hand
	key      keyFate // of the first binding
	idle     bool    // there is a connection that served a request
	accepted bool    // the host accepted the binding in the last 5 minutes
	lost     bool    // it lost a connection of it, which nothing has confirmed or cleared yet
	units    int     // of the budget; the next one comes after the test
}

// end is how the attempts with one binding ended.
type end int

const (
	ended        end = iota
	refused          // and the peer proved that it did not process the request
	refusedFinal     // and it may have processed it
)

// call is one request of the caller: with the binding at hand, and, if that is refused, once more with another.
func (m *model) call() (o outcome) {
	for second := false; ; second = true {
		if m.missing && !m.mint(&o) {
			return o
		}
		how := m.present(&o)
		if how == ended {
			return o
		}
		o.result = "refusal"
		if m.units == 0 && !m.keyDies() {
			return o // without a unit nothing is evicted
		}
		m.units = max(0, m.units-1)
		m.missing = true
		o.evicted++
		if how == refusedFinal || second {
			return o
		}
	}
}

// keyDies reports whether the fault is about a dead key, whose binding is evicted always.
func (m *model) keyDies() bool {
	return !m.replaced && m.key == keyDead || m.means(m.cell) == keyIsDead
}

func (m *model) means(c cell) meaning { return c.fault.means(c) }

// mint makes another binding, at which no host has been yet.
func (m *model) mint(o *outcome) bool {
	if m.means(m.cell) == keyIsDead && m.often == every {
		o.result = "error" // a provider that gives dead keys gets no certificate
		if m.choose() {    // the design does not say whether that error still is one of the refusal
			o.result = "refusal"
		}
		return false
	}
	m.missing, m.replaced, m.idle, m.accepted, m.lost = false, true, false, false, false
	o.minted++
	if m.fault.attestation {
		o.bypassed++
	}
	return true
}

// strikes reports whether the fault strikes an attempt on such a connection.
func (m *model) strikes(onReused bool) bool {
	switch {
	case m.fault.perConnection && onReused:
		return false
	case m.often == once:
		return m.struck == 0
	case m.often == always:
		return !m.replaced
	}
	return true
}

// meets returns what the next attempt meets, and notes what the server processes of it.
func (m *model) meets(onReused bool, o *outcome) meaning {
	if !onReused && !m.replaced { // the handshake wants a signature
		switch m.key {
		case keyDead:
			return keyIsDead
		case keyBusy:
			return keyNotNow
		}
	}
	if !m.strikes(onReused) {
		o.processed++
		return passes
	}
	m.struck++
	if !m.replaced {
		m.key = m.fault.key
	}
	if m.fault.processed {
		o.processed++
	}
	return m.means(m.cell)
}

// isWritten reports whether a lost request had been written, or a part of it: then the server may have processed it. In
// TLS 1.3 it is a race, when the server ends the connection at the sight of the certificate: the client is about to
// write.
func (m *model) isWritten(met meaning) bool {
	if met == lossAfter && m.tls == tls.VersionTLS13 && m.fault.perConnection && m.leg == legPOST {
		return m.choose()
	}
	return met == lossAfter
}
