package azmtls_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
)

// alertFaults are the TLS alerts, before and after our certificate was sent.
func alertFaults() (faults []*fault) {
	const subject = "TLS alerts"
	ofCertificate := []uint8{40, 42, 43, 44, 45, 46, 48, 49, 51, 116}
	others := []uint8{10, 20, 47, 50, 70, 71, 80, 86, 90, 112, 120}
	add := func(number uint8, at imdstest.Stage, means func(cell) meaning) {
		faults = append(faults, injected(subject, fmt.Sprintf("alert %d", number), at, imdstest.Alert(number), means))
	}
	for _, number := range ofCertificate {
		add(number, imdstest.AtCertificate, func(c cell) meaning {
			if number == 116 && c.tls == tls.VersionTLS12 {
				return silent // certificate_required is TLS 1.3's
			}
			return refuses
		})
		add(number, imdstest.AtHello, as(silent)) // it cannot be about a certificate that was not sent
	}
	for _, number := range others {
		add(number, imdstest.AtCertificate, func(c cell) meaning {
			if number == 90 && c.tls == tls.VersionTLS13 {
				return lossAfter // crypto/tls passes over user_canceled in TLS 1.3: the end of the connection is left
			}
			return silent
		})
		add(number, imdstest.AtHello, as(silent))
	}
	return faults
}

// lossAt is what a lost connection is, by the stage at which it is lost.
func lossAt(at imdstest.Stage) func(cell) meaning {
	switch at {
	case imdstest.AtConnect, imdstest.AtHello:
		return as(lossBefore)
	case imdstest.AtCertificate:
		return func(c cell) meaning {
			if c.tls == tls.VersionTLS13 {
				return lossAfter // the client has finished its handshake by then
			}
			return lossInside
		}
	case imdstest.AtRequest, imdstest.AtAnswer:
		return as(lossAfter)
	}
	return as(silent) // the answer had begun
}

// lossFaults are connections that end without a word, or on which nothing more comes.
func lossFaults() (faults []*fault) {
	const subject = "Lost connections"
	for _, at := range stages {
		reset := injected(subject, "reset", at, imdstest.Reset{}, lossAt(at))
		reset.mayFailToConnect = at == imdstest.AtConnect
		faults = append(faults, reset,
			injected(subject, "end of file", at, imdstest.EOF{}, lossAt(at)),
			injected(subject, "close_notify", at, imdstest.CloseNotify{}, lossAt(at)),
			injected(subject, "silence until the caller's deadline", at, imdstest.Hang{}, as(silent)))
	}
	return faults
}

var (
	errBadKey  = errors.New("NTE_BAD_KEYSET")
	errBusyKey = fmt.Errorf("the device is busy: %w", mtls.ErrKeyNotNow)
)

// keyFaults are private keys that do not sign, or not at once.
func keyFaults() (faults []*fault) {
	const subject = "The private key"
	add := func(name string, means func(cell) meaning, sign func(r *run) error) *fault {
		f := &fault{subject: subject, name: name, means: means, sign: sign, perConnection: true}
		faults = append(faults, f)
		return f
	}
	add("the key fails", func(c cell) meaning {
		if c.often == once {
			return keyHiccups
		}
		return keyIsDead
	}, func(r *run) error {
		if r.strike() {
			return errBadKey
		}
		return nil
	})
	add("the key says not now", as(keyNotNow), func(r *run) error {
		if r.strike() {
			return errBusyKey
		}
		return nil
	})
	then := add("the key fails, and says not now when probed", as(keyNotNow), func(r *run) error {
		if r.strike() && r.strikes.Load() == 1 {
			return errBadKey
		}
		return errBusyKey
	})
	then.omit = func(c cell) string {
		if c.often == once {
			return "it is two failures"
		}
		return ""
	}
	slow := add("the key is slow", as(passes), func(r *run) error {
		if r.strike() {
			<-time.After(5 * time.Millisecond)
		}
		return nil
	})
	slow.processed = true
	return append(faults, lossesWithKey(subject)...)
}

// lossesWithKey are lost connections after which the key signs no more.
func lossesWithKey(subject string) (faults []*fault) {
	add := func(name string, at imdstest.Stage, key keyFate, cause error) {
		f := injected(subject, name, at, imdstest.Reset{}, lossAt(at))
		f.key = key
		f.sign = func(r *run) error {
			if r.f.server.Counts().Faults > 0 {
				return cause
			}
			return nil
		}
		f.omit = func(c cell) string {
			if c.often == every {
				return "the next key is a good one"
			}
			return ""
		}
		faults = append(faults, f)
	}
	for _, at := range []imdstest.Stage{imdstest.AtCertificate, imdstest.AtRequest, imdstest.AtAnswer} {
		add("the key dies with a reset", at, keyDead, errBadKey)
		add("the key says not now after a reset", at, keyBusy, errBusyKey)
	}
	return faults
}
