package imdstest_test

import (
	"math"
	"slices"
	"testing"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// Every action at every stage of every endpoint: either it makes sense, or Inject says why it does not.
func TestInjectRefusesNonsense(t *testing.T) {
	answer, change := []imdstest.Stage{imdstest.AtRequest, imdstest.AtAnswer}, []imdstest.Stage{imdstest.AtAnswer}
	everywhere := []imdstest.Endpoint{imdstest.Metadata, imdstest.Issue, imdstest.V1, imdstest.Token, imdstest.Resource}
	objects, edit := everywhere[:4], imdstest.Edit(func(map[string]any) {})
	s := newServer(t, imdstest.Options{})
	for _, test := range []struct {
		action    imdstest.Action
		stages    []imdstest.Stage
		endpoints []imdstest.Endpoint
	}{
		{imdstest.Reset{}, stages, everywhere},
		{imdstest.EOF{}, stages, everywhere},
		{imdstest.CloseNotify{}, stages, everywhere},
		{imdstest.Hang{}, stages, everywhere},
		{imdstest.Delay(1), stages, everywhere},
		{imdstest.Alert(48), []imdstest.Stage{imdstest.AtHello, imdstest.AtCertificate}, everywhere},
		{imdstest.Respond{}, answer, everywhere},
		{imdstest.EntraError{OAuth: "invalid_client", AADSTS: "AADSTS700027"}, answer, []imdstest.Endpoint{imdstest.Token}},
		{imdstest.Redirect(), answer, everywhere},
		{imdstest.Malformed(), answer, everywhere},
		{imdstest.Oversized(), answer, everywhere},
		{edit, change, objects},
		{imdstest.SetHeader{"X": nil}, change, everywhere},
		{imdstest.Truncate{}, change, everywhere},
		{imdstest.ForeignKey{}, change, []imdstest.Endpoint{imdstest.Issue}},
	} {
		for _, stage := range stages {
			for _, endpoint := range everywhere {
				plain := endpoint == imdstest.Metadata || endpoint == imdstest.Issue || endpoint == imdstest.V1
				handshake := stage != imdstest.AtRequest && stage != imdstest.AtAnswer && stage != imdstest.AtBody
				fault := imdstest.Fault{Endpoint: endpoint, At: stage, Do: test.action}
				inject := func() { s.Inject(fault)() }
				if slices.Contains(test.stages, stage) && slices.Contains(test.endpoints, endpoint) && !(plain && handshake) {
					require.NotPanics(t, inject, "%T %s %s", test.action, stage, endpoint)
				} else {
					require.Panics(t, inject, "%T %s %s", test.action, stage, endpoint)
				}
			}
		}
	}
	for message, f := range map[string]imdstest.Fault{
		"a fault needs an action":  {Endpoint: imdstest.Token},
		"there is no such end":     {Do: imdstest.Hang{}},
		"there is no such stage":   {Endpoint: imdstest.Token, Do: imdstest.Hang{}, At: imdstest.AtBody + 1},
		"needs a function":         {Endpoint: imdstest.Token, At: imdstest.AtAnswer, Do: imdstest.Edit(nil)},
		"needs a header":           {Endpoint: imdstest.Token, At: imdstest.AtAnswer, Do: imdstest.SetHeader{}},
		"without a handshake":      {Endpoint: imdstest.Metadata, At: imdstest.AtHello, Do: imdstest.Reset{}},
		"without certificates":     {Endpoint: imdstest.Issue, Do: imdstest.Respond{}, Thumbprint: "x"},
		"no certificate is known":  {Endpoint: imdstest.Token, At: imdstest.AtHello, Do: imdstest.Reset{}, Thumbprint: "x"},
		"counts of calls":          {Endpoint: imdstest.Token, Do: imdstest.Hang{}, Skip: -1},
		"Times are counts":         {Endpoint: imdstest.Token, Do: imdstest.Hang{}, Times: -1},
		"from 0 to 1":              {Endpoint: imdstest.Token, Do: imdstest.Hang{}, Rate: 1.5},
		"Rate is a share":          {Endpoint: imdstest.Token, Do: imdstest.Hang{}, Rate: math.NaN()},
		"in a handshake":           {Endpoint: imdstest.Token, Do: imdstest.Alert(48)},
		"is not the status":        {Endpoint: imdstest.Token, Do: imdstest.Respond{Status: 42}},
		"is no AADSTS code":        {Endpoint: imdstest.Token, Do: imdstest.EntraError{AADSTS: "AADSTSx"}},
		"from the endpoint Token":  {Endpoint: imdstest.Issue, Do: imdstest.EntraError{AADSTS: "1"}},
		"from the endpoint Issue":  {Endpoint: imdstest.Token, At: imdstest.AtAnswer, Do: imdstest.ForeignKey{}},
		"only AtAnswer":            {Endpoint: imdstest.Token, Do: imdstest.Truncate{}},
		"AtRequest or AtAnswer":    {Endpoint: imdstest.Token, At: imdstest.AtBody, Do: imdstest.Respond{}},
		"is its handler's":         {Endpoint: imdstest.Resource, At: imdstest.AtAnswer, Do: edit},
		`imdstest.Alert Stage(-1)`: {Endpoint: imdstest.Token, At: -1, Do: imdstest.Alert(48)},
	} {
		func() {
			defer func() { require.Contains(t, recover(), message) }()
			s.Inject(f)
		}()
	}
}
