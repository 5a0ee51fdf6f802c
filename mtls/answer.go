package mtls

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/azmtls/azmtls/internal/bounded"
	"github.com/azmtls/azmtls/internal/keyvault"
	"github.com/azmtls/azmtls/internal/oauth"
)

// read notes what an answer says of the certificate. Its body can be read again.
func (f *facts) read(req *http.Request, resp *http.Response) {
	f.status = resp.StatusCode
	if f.token {
		bounded.Response(resp)
		if f.status != http.StatusOK {
			f.oauth = oauth.Read(resp)
		}
		return
	}
	if f.status != http.StatusBadRequest && f.status != http.StatusUnauthorized {
		return
	}
	switch mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case f.status == http.StatusBadRequest && mediaType == "text/html" && nginxPage.Match(peek(resp)):
		f.said = nginxRefuses
	case keyvault.MayRefuse(req.Header, f.status, mediaType) && keyvault.Refuses(peek(resp)):
		f.said = keyVaultRefuses
	}
}

// nginxPage is the beginning of the page by which nginx says that it does not take a certificate: the title is its own.
// What an application echoes from its user stands elsewhere.
var nginxPage = regexp.MustCompile(
	`(?i)^\s*(?:<!doctype[^>]*>\s*)?<html>\s*<head>\s*<title>(?-i:400 The SSL certificate error)</title>`,
)

// evidence returns the error of an answer that refuses the certificate. The answer's body is closed.
func (f *facts) evidence(resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	switch f.said {
	case nginxRefuses:
		return answerError(
			"400 The SSL certificate error, as nginx does to a client certificate that it does not take",
			resp,
		)
	case keyVaultRefuses:
		return answerError(
			"401 MtlsCnfClaimRequestDataValidationFailed, as Key Vault does when token and certificate do not match",
			resp,
		)
	case nothingSaid:
	}
	if f.oauth != nil {
		return f.oauth
	}
	return errors.New("the answer refuses the certificate")
}

// answerError is a refusal in HTTP: it unwraps to the *azcore.ResponseError, whose body is what was looked at.
func answerError(text string, resp *http.Response) error {
	kept := *resp
	kept.Body = io.NopCloser(bytes.NewReader(peek(resp)))
	return fmt.Errorf(
		"the resource answered %s (%w)",
		text,
		statusError{&azcore.ResponseError{StatusCode: resp.StatusCode, RawResponse: &kept}},
	)
}

// statusError is a *azcore.ResponseError whose text is its status alone: the whole one quotes the answer.
type statusError struct{ *azcore.ResponseError }

func (e statusError) Error() string { return http.StatusText(e.StatusCode) }

func (e statusError) Unwrap() error { return e.ResponseError }

// peekSize is how much of an error answer is looked at, in bytes. Key Vault's have a few hundred.
const peekSize = 64 << 10

// peek returns the beginning of the body, which stays readable.
func peek(resp *http.Response) []byte {
	start, err := io.ReadAll(io.LimitReader(resp.Body, peekSize))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = errorReader{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), rest), resp.Body}
	return start
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }
