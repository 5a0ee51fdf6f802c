package azmtls_test

import (
	"net/http"

	"github.com/azmtls/azmtls/imdstest"
)

const (
	typeHTML = "text/html"
	typeJSON = "application/json; charset=utf-8"
	typeText = "text/plain"

	nginxPage = "<html>\r\n<head><title>400 The SSL certificate error</title></head>\r\n<body>\r\n" +
		"<center><h1>400 Bad Request</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
	mismatch = `"MtlsCnfClaimRequestDataValidationFailed"`
)

func respond(status int, mediaType, body string) imdstest.Respond {
	return imdstest.Respond{Status: status, Header: http.Header{"Content-Type": {mediaType}}, Body: body}
}

// resourceFaults are the words by which resources refuse a certificate, and the same words in other mouths.
func resourceFaults() (faults []*fault) {
	for name, answer := range inSequence(
		"nginx's page", respond(400, typeHTML, nginxPage),
		"nginx's page with a doctype", respond(400, "text/html; charset=utf-8", "<!DOCTYPE html>\n"+nginxPage),
		"Key Vault's error.code", respond(401, typeJSON, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's innererror.code", respond(401, "application/json",
			`{"error":{"code":"Unauthorized","message":"no","innererror":{"code":`+mismatch+`}}}`),
		"Key Vault's innererror of an innererror", respond(401, typeJSON,
			`{"error":{"code":"Unauthorized","innererror":{"code":"Forbidden","innererror":{"code":`+mismatch+`}}}}`),
	) {
		faults = append(faults, said("A resource refuses", name, answer, as(refuses), resources...))
	}
	const elsewhere = "A resource that says something else"
	add := func(name string, answer imdstest.Respond, means meaning) *fault {
		f := injected(elsewhere, name, imdstest.AtAnswer, answer, as(means))
		f.at, f.legs = "", resources
		faults = append(faults, f)
		return f
	}
	for name, answer := range inSequence(
		"nginx's page as text/plain", respond(400, typeText, nginxPage),
		"nginx's page as JSON", respond(400, typeJSON, nginxPage),
		"nginx's title in JSON", respond(400, typeJSON, `{"error":{"message":"<title>400 The SSL certificate error</title>"}}`),
		"nginx's title in the body of a page", respond(400, typeHTML, "<html><head><title>400 Bad Request</title></head>"+
			"<body><title>400 The SSL certificate error</title></body></html>"),
		"nginx's title in the head, after another", respond(400, typeHTML, "<html><head><title>Oh</title>"+
			"<title>400 The SSL certificate error</title></head></html>"),
		"nginx's words as a heading", respond(400, typeHTML, "<html><head><title>400 Bad Request</title></head>"+
			"<body><h1>400 The SSL certificate error</h1></body></html>"),
		"nginx's title and more in it", respond(400, typeHTML, "<html><head><title>400 The SSL certificate error of Bob's"+
			"</title></head></html>"),
		"nginx: no certificate was sent", respond(400, typeHTML, "<html><head><title>400 No required SSL certificate was sent"+
			"</title></head></html>"),
		"nginx's page with 401", respond(401, typeHTML, nginxPage),
		"nginx's page with 403", respond(403, typeHTML, nginxPage),
		"nginx's page with 502", respond(502, typeHTML, nginxPage),
		"Key Vault's code in error.message", respond(401, typeJSON, `{"error":{"code":"Unauthorized","message":`+mismatch+`}}`),
		"Key Vault's code in error.details", respond(401, typeJSON,
			`{"error":{"code":"Unauthorized","details":[{"code":`+mismatch+`}]}}`),
		"Key Vault's code outside error", respond(401, typeJSON, `{"code":`+mismatch+`,"innererror":{"code":`+mismatch+`}}`),
		"Key Vault's code as error", respond(401, typeJSON, `{"error":`+mismatch+`}`),
		"Key Vault's code as the name of a member", respond(401, typeJSON, `{"error":{`+mismatch+`:{"code":"Unauthorized"}}}`),
		"Key Vault's code and more", respond(401, typeJSON, `{"error":{"code":"MtlsCnfClaimRequestDataValidationFailed2"}}`),
		"Key Vault's code in a list", respond(401, typeJSON, `{"error":{"code":[`+mismatch+`]}}`),
		"Key Vault's code as text/plain", respond(401, typeText, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code as HTML", respond(401, typeHTML, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code with 400", respond(400, typeJSON, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code with 403", respond(403, typeJSON, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code in JSON that breaks off", respond(401, typeJSON, `{"error":{"code":`+mismatch),
		"Entra's invalid_client", respond(401, typeJSON, `{"error":"invalid_client","error_description":"AADSTS500181: no"}`),
		"Entra's AADSTS500181", respond(400, typeJSON, `{"error":"invalid_request","error_codes":[500181]}`),
		"an ordinary 400", respond(400, typeJSON, `{"error":{"code":"BadParameter"}}`),
		"an ordinary 401", respond(401, typeJSON, `{"error":{"code":"Unauthorized"}}`),
		"an ordinary 403", respond(403, typeJSON, `{"error":{"code":"Forbidden"}}`),
	) {
		add(name, answer, answers)
	}
	add("nginx's page with 200", respond(200, typeHTML, nginxPage), succeeds)
	add("Key Vault's code, not asked for the certificate", respond(401, typeJSON, `{"error":{"code":`+mismatch+`}}`), answers).unasked = true
	return faults
}

// answerFaults are answers of overload and illness, and answers that make no sense.
func answerFaults() (faults []*fault) {
	const ill, odd = "Overload and illness", "Answers that make no sense"
	for name, answer := range inSequence(
		"408", respond(408, typeText, "too slow"),
		"413", respond(413, typeHTML, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
		"429", respond(429, typeJSON, `{"error":{"code":"TooManyRequests"}}`),
		"500", respond(500, typeJSON, `{"error":{"code":"InternalError"}}`),
		"502", respond(502, typeHTML, "<html><head><title>502 Bad Gateway</title></head></html>"),
		"503", respond(503, typeText, ""),
		"504", respond(504, typeText, ""),
	) {
		faults = append(faults, said(ill, name, answer, as(answers)))
	}
	// A resource's answer is the caller's to read; the token endpoint's is ours.
	success := atResource(succeeds, answers)
	return append(faults,
		said(odd, "JSON that breaks off", imdstest.Malformed(), success),
		said(odd, "more than 1 MiB", imdstest.Oversized(), success),
		said(odd, "a page of HTML with 200", respond(200, typeHTML, "<html>Please log in</html>"), success),
		said(odd, "nothing, with 200", respond(200, typeJSON, ""), success),
		said(odd, "a redirect", imdstest.Redirect(), as(answers)),
		injected(odd, "half of what its length says,", imdstest.AtAnswer, imdstest.Truncate{}, as(silent)),
		injected(odd, "a token of another type", imdstest.AtAnswer, imdstest.Edit(func(body map[string]any) {
			body["token_type"] = "mtls_pop"
		}), as(answers)).at0(legToken),
	)
}
