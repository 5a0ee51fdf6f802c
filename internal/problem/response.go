package problem

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// maxBody is how much of the body of an error answer is kept, in bytes.
const maxBody = 4 << 10

// Response returns a copy of an error answer to carry in an error, for those who print it or look into it: its body is
// bounded and free of control characters, and identifiers are shortened in it and in the URL of its request. Many may
// read it at once with runtime.Payload, as *azcore.ResponseError does.
func Response(resp *http.Response, body []byte) *http.Response {
	kept := []byte(MaskIDs(strings.Map(printable, strings.ToValidUTF8(string(body[:min(len(body), maxBody)]), ""))))
	c := &http.Response{
		Status: resp.Status, StatusCode: resp.StatusCode,
		Proto: resp.Proto, ProtoMajor: resp.ProtoMajor, ProtoMinor: resp.ProtoMinor,
		Header: resp.Header.Clone(), Body: io.NopCloser(bytes.NewReader(kept)), ContentLength: int64(len(kept)),
	}
	c.Header.Del("Set-Cookie")
	c.Header.Del("Content-Length")
	if req := resp.Request; req != nil && req.URL != nil {
		u := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: MaskIDs(req.URL.Path)}
		c.Request = &http.Request{Method: req.Method, URL: &u, Host: req.Host, Header: http.Header{}}
	}
	_, _ = runtime.Payload(c) // leaves a body that every reader finds whole
	return c
}

func printable(r rune) rune {
	if unicode.IsPrint(r) || r == '\n' || r == '\t' {
		return r
	}
	return -1
}

var guid = regexp.MustCompile(`([0-9a-fA-F]{6})[0-9a-fA-F]{2}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)

// MaskIDs shortens the identifiers of clients and tenants in a text that a server wrote.
func MaskIDs(text string) string { return guid.ReplaceAllString(text, "${1}…") }
