package azmtls_test

// keyFate is what becomes of the key when the fault strikes.
type keyFate int

const (
	keyLives keyFate = iota
	keyDead
	keyBusy // it cannot sign at the moment
)

// maxFresh is how often a request goes out on fresh connections with one binding.
const maxFresh = 2

// present is one request on its way with one binding: its attempts, by the rows of the table.
func (m *model) present(o *outcome) end {
	for onFresh := 0; ; {
		onReused := m.idle
		m.idle = false
		if !onReused {
			onFresh++
		}
		mayRepeat := onFresh < maxFresh
		switch met := m.meets(onReused, o); met {
		case passes, succeeds:
			o.result = "ok"
			return ended
		case answers:
			o.result = "answer"
			if m.leg == legToken {
				o.result = "error"
			}
			return ended
		case silent:
			o.result = "error"
			return ended
		case refuses, keyIsDead:
			return refused
		case keyHiccups:
			if !mayRepeat {
				o.result = "error"
				return ended
			}
		case keyNotNow:
			// The design says that the binding stays, and not whether the key is asked once more.
			if m.often != once || m.key == keyBusy || !m.choose() {
				o.result = "error"
				return ended
			}
		case lossBefore, lossInside, lossAfter:
			if how, again := m.lose(met, onReused, mayRepeat); !again {
				o.result = "error"
				return how
			}
		}
	}
}

// lose says what a lost connection means, and whether the request goes out once more by itself.
func (m *model) lose(met meaning, onReused, mayRepeat bool) (how end, again bool) {
	harmless := !m.isWritten(met) || m.leg != legPOST // to send the request once more
	switch {
	case onReused:
		return ended, harmless
	case met == lossBefore && m.fault.mayFailToConnect && m.choose():
		return ended, false // a reset can overtake the end of connect(2): then it is a dial that failed
	case met == lossBefore:
		return ended, mayRepeat
	}
	final := refusedFinal
	if harmless {
		final = refused
	}
	if met == lossAfter && m.leg != legToken && m.accepted { // no evidence
		if m.key == keyDead && !m.replaced && !harmless && m.choose() {
			return final, false // the design does not say whether the key is asked for a signature after such a loss
		}
		return ended, harmless && mayRepeat
	}
	if m.key == keyDead && !m.replaced || m.lost {
		return final, false // a request that may have been processed is not repeated, whatever the key says afterwards
	}
	m.lost = true
	return ended, harmless && mayRepeat
}
