// Package simulate runs imdstest as a program: an Azure VM on loopback for clients in any language.
package simulate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/azmtls/azmtls/imdstest"
)

// fault is an imdstest.Fault in JSON. Exactly one action is given.
type fault struct {
	Endpoint   imdstest.Endpoint `json:"endpoint"` // metadata, issue, v1, token or resource
	At         string            `json:"at"`       // request (default), connect, hello, certificate, answer or body
	Thumbprint string            `json:"thumbprint"`
	Skip       int               `json:"skip"`
	Times      int               `json:"times"`
	Rate       float64           `json:"rate"`

	Do        string             `json:"do"`    // a name of simple
	Alert     *uint8             `json:"alert"` // RFC 8446, section 6
	Delay     string             `json:"delay"` // as Go writes durations: 1.5s
	Respond   *respond           `json:"respond"`
	Entra     *entraError        `json:"entra"`
	Edit      map[string]any     `json:"edit"`       // members of the answer; null deletes one
	SetHeader map[string]*string `json:"set_header"` // headers of the answer; null deletes one
}

type respond struct {
	Status     int               `json:"status"`
	RetryAfter string            `json:"retry_after"`
	Header     map[string]string `json:"header"`
	Body       string            `json:"body"`
}

type entraError struct {
	Error  string `json:"error"`
	AADSTS string `json:"aadsts"`
	Status int    `json:"status"`
}

var stages = map[string]imdstest.Stage{
	"": imdstest.AtRequest, "request": imdstest.AtRequest, "connect": imdstest.AtConnect, "hello": imdstest.AtHello,
	"certificate": imdstest.AtCertificate, "answer": imdstest.AtAnswer, "body": imdstest.AtBody,
}

var simple = map[string]imdstest.Action{
	"reset": imdstest.Reset{}, "eof": imdstest.EOF{}, "close_notify": imdstest.CloseNotify{}, "hang": imdstest.Hang{},
	"truncate": imdstest.Truncate{}, "malformed": imdstest.Malformed(), "oversized": imdstest.Oversized(),
	"redirect": imdstest.Redirect(), "foreign_key": imdstest.ForeignKey{},
}

// maxFaults is how many bytes of faults are read.
const maxFaults = 1 << 20

// ReadFaults reads one fault in JSON, or an array of them. See README.md for their form.
func ReadFaults(r io.Reader) ([]imdstest.Fault, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFaults+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFaults {
		return nil, fmt.Errorf("the faults have more than %d bytes", maxFaults)
	}
	var given []fault
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err = decode(text, &given)
	} else {
		given = make([]fault, 1)
		err = decode(text, &given[0])
	}
	if err != nil {
		return nil, fmt.Errorf("the faults are not the JSON that they should be: %w", err)
	}
	var faults []imdstest.Fault
	for i, g := range given {
		f, err := g.fault()
		if err == nil {
			err = f.Validate()
		}
		if err != nil {
			return nil, fmt.Errorf("fault %d: %w", i+1, err)
		}
		faults = append(faults, f)
	}
	return faults, nil
}

// decode reads one JSON value, without names that it does not know and without anything after it.
func decode(text []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows them")
	}
	return nil
}

func (g fault) fault() (imdstest.Fault, error) {
	at, known := stages[g.At]
	if !known {
		return imdstest.Fault{}, fmt.Errorf("there is no stage %q", g.At)
	}
	do, err := g.action()
	return imdstest.Fault{
		Endpoint: g.Endpoint, At: at, Do: do, Thumbprint: g.Thumbprint, Skip: g.Skip, Times: g.Times, Rate: g.Rate,
	}, err
}

func (g fault) action() (imdstest.Action, error) {
	var actions []imdstest.Action
	if g.Do != "" {
		do, known := simple[g.Do]
		if !known {
			return nil, fmt.Errorf("there is no action %q", g.Do)
		}
		actions = append(actions, do)
	}
	if g.Alert != nil {
		actions = append(actions, imdstest.Alert(*g.Alert))
	}
	if g.Delay != "" {
		d, err := time.ParseDuration(g.Delay)
		if err != nil {
			return nil, err
		}
		actions = append(actions, imdstest.Delay(d))
	}
	if g.Respond != nil {
		do, err := g.Respond.action()
		if err != nil {
			return nil, err
		}
		actions = append(actions, do)
	}
	if g.Entra != nil {
		actions = append(actions, imdstest.EntraError{OAuth: g.Entra.Error, AADSTS: g.Entra.AADSTS, Status: g.Entra.Status})
	}
	if g.Edit != nil {
		actions = append(actions, edit(g.Edit))
	}
	if g.SetHeader != nil {
		actions = append(actions, setHeader(g.SetHeader))
	}
	if len(actions) != 1 {
		return nil, errors.New("a fault has exactly one of do, alert, delay, respond, entra, edit, set_header")
	}
	return actions[0], nil
}

func (r respond) action() (imdstest.Action, error) {
	do := imdstest.Respond{Status: r.Status, Body: r.Body, Header: http.Header{}}
	for name, value := range r.Header {
		do.Header.Set(name, value)
	}
	if r.RetryAfter == "" {
		return do, nil
	}
	var err error
	do.RetryAfter, err = time.ParseDuration(r.RetryAfter)
	return do, err
}

func edit(members map[string]any) imdstest.Action {
	return imdstest.Edit(func(answer map[string]any) {
		maps.Copy(answer, members)
		maps.DeleteFunc(answer, func(name string, value any) bool {
			_, given := members[name]
			return given && value == nil
		})
	})
}

func setHeader(headers map[string]*string) imdstest.Action {
	set := imdstest.SetHeader{}
	for name, value := range headers {
		if name = http.CanonicalHeaderKey(name); value == nil {
			set[name] = nil
		} else {
			set[name] = []string{*value}
		}
	}
	return set
}
