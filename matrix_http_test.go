package azmtls_test

import (
	"net/http"

	"github.com/azmtls/azmtls/imdstest"
)

const (
	nginxPage = "<html>\r\n<head><title>400 The SSL certificate error</title></head>\r\n<body>\r\n" +
		"<center><h1>400 Bad Request</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
	mismatch = `"MtlsCnfClaimRequestDataValidationFailed"`
)

func inJSON(status int, body string) imdstest.Respond {
	return respond(status, "application/json; charset=utf-8", body)
}

func inHTML(status int, body string) imdstest.Respond { return respond(status, "text/html", body) }

func inText(status int, body string) imdstest.Respond { return respond(status, "text/plain", body) }

func respond(status int, mediaType, body string) imdstest.Respond {
	return imdstest.Respond{Status: status, Header: http.Header{"Content-Type": {mediaType}}, Body: body}
}

// resourceFaults are the words by which resources refuse a certificate, and the same words in other mouths.
func resourceFaults() (faults []*fault) {
	for name, answer := range inSequence(
		"nginx's page", inHTML(400, nginxPage),
		"nginx's page with a doctype", respond(400, "text/html; charset=utf-8", "<!DOCTYPE html>\n"+nginxPage),
		"Key Vault's error.code", inJSON(401, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's innererror.code", respond(401, "application/json",
			`{"error":{"code":"Unauthorized","message":"no","innererror":{"code":`+mismatch+`}}}`),
		"Key Vault's innererror of an innererror", inJSON(401, `{"error":{"code":"Unauthorized","innererror":`+
			`{"code":"Forbidden","innererror":{"code":`+mismatch+`}}}}`),
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
		"nginx's page as text/plain", inText(400, nginxPage),
		"nginx's page as JSON", inJSON(400, nginxPage),
		"nginx's title in JSON", inJSON(400, `{"error":{"message":"<title>400 The SSL certificate error</title>"}}`),
		"nginx's title in the body of a page", inHTML(400, "<html><head><title>400 Bad Request</title></head>"+
			"<body><title>400 The SSL certificate error</title></body></html>"),
		"nginx's title in the head behind another", inHTML(400, "<html><head><title>Oh</title>"+
			"<title>400 The SSL certificate error</title></head></html>"),
		"nginx's words as a heading", inHTML(400, "<html><head><title>400 Bad Request</title></head>"+
			"<body><h1>400 The SSL certificate error</h1></body></html>"),
		"nginx's title and more in it", inHTML(400, "<html><head>"+
			"<title>400 The SSL certificate error of Bob's</title></head></html>"),
		"nginx: no certificate was sent", inHTML(400, "<html><head>"+
			"<title>400 No required SSL certificate was sent</title></head></html>"),
		"nginx's page with 401", inHTML(401, nginxPage),
		"nginx's page with 403", inHTML(403, nginxPage),
		"nginx's page with 502", inHTML(502, nginxPage),
		"Key Vault's code in error.message", inJSON(401, `{"error":{"code":"Unauthorized","message":`+mismatch+`}}`),
		"Key Vault's code in error.details", inJSON(401,
			`{"error":{"code":"Unauthorized","details":[{"code":`+mismatch+`}]}}`),
		"Key Vault's code outside error", inJSON(401, `{"code":`+mismatch+`,"innererror":{"code":`+mismatch+`}}`),
		"Key Vault's code as error", inJSON(401, `{"error":`+mismatch+`}`),
		"Key Vault's code as the name of a member", inJSON(401,
			`{"error":{`+mismatch+`:{"code":"Unauthorized"}}}`),
		"Key Vault's code and more", inJSON(401, `{"error":{"code":"MtlsCnfClaimRequestDataValidationFailed2"}}`),
		"Key Vault's code in a list", inJSON(401, `{"error":{"code":[`+mismatch+`]}}`),
		"Key Vault's code as text/plain", inText(401, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code as HTML", inHTML(401, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code with 400", inJSON(400, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code with 403", inJSON(403, `{"error":{"code":`+mismatch+`}}`),
		"Key Vault's code in JSON that breaks off", inJSON(401, `{"error":{"code":`+mismatch),
		"Entra's invalid_client", inJSON(401, `{"error":"invalid_client","error_description":"AADSTS500181: no"}`),
		"Entra's AADSTS500181", inJSON(400, `{"error":"invalid_request","error_codes":[500181]}`),
		"an ordinary 400", inJSON(400, `{"error":{"code":"BadParameter"}}`),
		"an ordinary 401", inJSON(401, `{"error":{"code":"Unauthorized"}}`),
		"an ordinary 403", inJSON(403, `{"error":{"code":"Forbidden"}}`),
	) {
		add(name, answer, answers)
	}
	add("nginx's page with 200", inHTML(200, nginxPage), succeeds)
	unasked := add("Key Vault's code when not asked for the certificate",
		inJSON(401, `{"error":{"code":`+mismatch+`}}`), answers)
	unasked.unasked = true
	return faults
}

// answerFaults are answers of overload and illness, and answers that make no sense.
func answerFaults() (faults []*fault) {
	const ill, odd = "Overload and illness", "Answers that make no sense"
	for name, answer := range inSequence(
		"408", inText(408, "too slow"),
		"413", inHTML(413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
		"429", inJSON(429, `{"error":{"code":"TooManyRequests"}}`),
		"500", inJSON(500, `{"error":{"code":"InternalError"}}`),
		"502", inHTML(502, "<html><head><title>502 Bad Gateway</title></head></html>"),
		"503", inText(503, ""),
		"504", inText(504, ""),
	) {
		faults = append(faults, said(ill, name, answer, as(answers)))
	}
	// A resource's answer is the caller's to read; the token endpoint's is ours.
	success := atResource(succeeds, answers)
	return append(faults,
		said(odd, "JSON that breaks off", imdstest.Malformed(), success),
		said(odd, "more than 1 MiB", imdstest.Oversized(), success),
		said(odd, "a page of HTML with 200", inHTML(200, "<html>Please log in</html>"), success),
		said(odd, "no body, with 200", inJSON(200, ""), success),
		said(odd, "a redirect", imdstest.Redirect(), as(answers)),
		injected(odd, "half an answer", imdstest.AtAnswer, imdstest.Truncate{}, as(silent)).only(legs...),
		injected(odd, "a token of another type", imdstest.AtAnswer, imdstest.Edit(func(body map[string]any) {
			body["token_type"] = "mtls_pop"
		}), as(answers)).only(legToken),
	)
}
