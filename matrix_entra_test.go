package azmtls_test

import (
	"fmt"
	"iter"

	"github.com/azmtls/azmtls/imdstest"
)

// inSequence pairs names and answers, in their order.
func inSequence(pairs ...any) iter.Seq2[string, imdstest.Respond] {
	return func(yield func(string, imdstest.Respond) bool) {
		for i := 0; i < len(pairs); i += 2 {
			if !yield(pairs[i].(string), pairs[i+1].(imdstest.Respond)) {
				return
			}
		}
	}
}

// only leaves out the stage of a fault that comes at no other, and says at which requests it comes.
func (f *fault) only(legs ...leg) *fault {
	f.at, f.legs = "", legs
	return f
}

func entraError(oauth, code string) imdstest.Respond {
	status := 400
	if oauth == "invalid_client" {
		status = 401
	}
	return inJSON(status, fmt.Sprintf(
		`{"error":%q,"error_description":"AADSTS%s: No. Trace ID: 1 Correlation ID: 2","error_codes":[%s]}`,
		oauth, code, code))
}

// entraFaults are Entra's refusals, and what resembles them.
func entraFaults() (faults []*fault) {
	add := func(subject, name string, answer imdstest.Respond, means meaning) *fault {
		f := said(subject, name, answer, as(means), legToken)
		faults = append(faults, f)
		return f
	}
	const refusal = "Entra refuses"
	for name, answer := range inSequence(
		"invalid_client", entraError("invalid_client", "700027"),
		"invalid_client with 400", inJSON(400, `{"error":"invalid_client","error_description":"AADSTS700027: no"}`),
		"invalid_client without a code", inJSON(401, `{"error":"invalid_client"}`),
		"invalid_client behind a byte order mark", inJSON(401, "\ufeff"+`{"error":"invalid_client"}`),
		"AADSTS1000901", entraError("invalid_request", "1000901"),
		"AADSTS500181", entraError("invalid_request", "500181"),
		"AADSTS500181 in the description alone", inJSON(400,
			`{"error":"invalid_request","error_description":"AADSTS500181: no"}`),
		"AADSTS500181 in the codes alone", inJSON(400, `{"error":"invalid_request","error_codes":[90014,500181]}`),
		"AADSTS500181 as a string in the codes", inJSON(400, `{"error":"invalid_request","error_codes":["500181"]}`),
	) {
		add(refusal, name, answer, refuses)
	}
	for code := 1000610; code <= 1000614; code++ {
		name := fmt.Sprintf("AADSTS%d", code)
		add(refusal, name, entraError("invalid_request", fmt.Sprint(code)), refuses).attestation = true
	}

	const identity = "Entra knows another identity, or none"
	for name, answer := range inSequence(
		"AADSTS700016", entraError("unauthorized_client", "700016"),
		"AADSTS700016 as invalid_client", entraError("invalid_client", "700016"),
		"AADSTS7000229", entraError("invalid_client", "7000229"),
		"unauthorized_client", entraError("unauthorized_client", "50105"),
	) {
		add(identity, name, answer, answers)
		another := add(identity, name+", and the metadata names another", answer, refuses)
		another.recreate = true
		another.omit = func(c cell) string {
			if c.often == every || c.conn == fresh && c.origin == stored {
				return "the new identity is known; a stored binding of another one is not presented"
			}
			return ""
		}
	}

	const unbindable = "Entra binds no tokens"
	add(unbindable, "AADSTS392196", entraError("invalid_request", "392196"), answers)
	add(unbindable, "AADSTS3921996", entraError("invalid_request", "3921996"), answers)
	add(unbindable, "AADSTS3921996 as invalid_client", entraError("invalid_client", "3921996"), answers)
	add(unbindable, "AADSTS392196 as invalid_client", entraError("invalid_client", "392196"), answers)
	return append(faults, entraEchoes()...)
}

// entraEchoes are answers of Entra that hold the words of a refusal, or nearly, and are none.
func entraEchoes() (faults []*fault) {
	const alike = "Entra says something like it"
	for _, code := range []string{
		"10009011", "100090", "5001811", "50018", "1500181", "1000609", "1000615", "10006100", "100061",
		"7000161", "3921961",
	} {
		faults = append(faults, said(alike, "AADSTS"+code, entraError("invalid_request", code), as(answers), legToken))
	}
	for name, answer := range inSequence(
		"a code within a description", inJSON(400, `{"error":"invalid_scope",`+
			`"error_description":"AADSTS70011: The scope AADSTS500181: is not valid.","error_codes":[70011]}`),
		"a code at the end of a description", inJSON(400, `{"error":"invalid_request",`+
			`"error_description":"The client is AADSTS1000901"}`),
		"a code on the second line", inJSON(400, `{"error":"invalid_request",`+
			`"error_description":"AADSTS90014: no\nAADSTS500181: no"}`),
		"a code as error", inJSON(400, `{"error":"AADSTS500181"}`),
		"a code as suberror", inJSON(400, `{"error":"invalid_grant","suberror":"AADSTS500181"}`),
		"a code in an URL", inJSON(400, `{"error":"invalid_grant","error_uri":"https://x/?code=500181"}`),
		"a code in another list", inJSON(400, `{"error":"invalid_grant","codes":[500181]}`),
		"a code in HTML", inHTML(400, "<html>AADSTS500181: no</html>"),
		"a code in a text", inText(400, "AADSTS500181: no"),
		"invalid_client in a description", inJSON(400,
			`{"error":"invalid_request","error_description":"invalid_client"}`),
		"invalid_client in an object", inJSON(401, `{"error":{"code":"invalid_client"}}`),
		"invalid_client and more", inJSON(401, `{"error":"invalid_client_metadata"}`),
		"invalid_client in a list", inJSON(401, `[{"error":"invalid_client"}]`),
		"invalid_client in HTML", inHTML(401, "<html><title>invalid_client</title></html>"),
		"invalid_client in JSON that breaks off", inJSON(401, `{"error":"invalid_client"`),
		"invalid_client with 408", inJSON(408, `{"error":"invalid_client"}`),
		"invalid_client with 429", inJSON(429, `{"error":"invalid_client"}`),
		"invalid_client with 500", inJSON(500, `{"error":"invalid_client"}`),
		"invalid_client with 503", inJSON(503, `{"error":"invalid_client"}`),
		"AADSTS500181 with 503", inJSON(503, `{"error":"invalid_request","error_codes":[500181]}`),
		"nginx's page", inHTML(400, nginxPage),
		"Key Vault's refusal", inJSON(401, `{"error":{"code":`+mismatch+`}}`),
		"invalid_scope", entraError("invalid_scope", "70011"),
		"invalid_request", entraError("invalid_request", "90014"),
		"temporarily_unavailable", entraError("temporarily_unavailable", "90033"),
	) {
		faults = append(faults, said(alike, name, answer, as(answers), legToken))
	}
	return faults
}
