package imds

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/internal/bounded"
	"github.com/azmtls/azmtls/internal/limits"
)

// answeredKey leads to a function that is to be called when IMDS has answered for the first time.
type answeredKey struct{}

// transport refuses redirects and oversized answers, whatever the transporter below does, and reads an answer whole:
// one that is cut short is a failure of the connection, and the request is repeated.
type transport struct{ next policy.Transporter }

func (t transport) Do(req *http.Request) (*http.Response, error) {
	req, err := withOwnBody(req)
	if err != nil {
		return nil, err
	}
	resp, err := t.next.Do(req)
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err // its text has the URL, and that the identity
	}
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(req.URL.Path, MetadataPath) && !IsServer(resp.Header.Get("Server")) {
		_ = resp.Body.Close()
		return nil, newStranger(req, resp)
	}
	if answered, ok := req.Context().Value(answeredKey{}).(func()); ok {
		answered()
	}
	redirected := resp.Request != nil && resp.Request.URL != nil && resp.Request.URL.String() != req.URL.String() &&
		resp.Request.Response != nil
	if redirected || resp.StatusCode/100 == 3 {
		_ = resp.Body.Close()
		return nil, redirectError{resp.StatusCode}
	}
	bounded.Response(resp)
	if _, err := runtime.Payload(resp); err != nil { // which keeps it
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return resp, nil
}

// IsServer reports whether it is IMDS that answered, by the Server header: it says so in each of its answers.
func IsServer(header string) bool { return strings.Contains(strings.ToUpper(header), "IMDS") }

// withOwnBody returns the request with a copy of its body: net/http may go on reading after the answer came, and a
// retry begins at the start of what was given to it.
func withOwnBody(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the request to IMDS: %w", err)
	}
	own := *req
	own.Body = io.NopCloser(bytes.NewReader(body))
	own.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return &own, nil
}

// redirectError refuses a redirect: it would carry the certificate request elsewhere.
type redirectError struct{ status int }

func (e redirectError) Error() string {
	return fmt.Sprintf("the answer is a redirect (%d), which is refused", e.status)
}

// NonRetriable marks the error as final.
func (redirectError) NonRetriable() {}

// withoutRedirects returns the transporter to use, and what closes its idle connections if they are ours. IMDS is
// reached from the machine itself: no proxy of an *http.Client is used.
func withoutRedirects(t policy.Transporter) (next policy.Transporter, closeIdle func()) {
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	switch t := t.(type) {
	case nil:
		own := &http.Transport{
			DialContext:     (&net.Dialer{Timeout: limits.Dial}).DialContext,
			MaxIdleConns:    2,
			IdleConnTimeout: 30 * time.Second,
		}
		return &http.Client{Transport: own, CheckRedirect: refuse}, own.CloseIdleConnections
	case *http.Client:
		c := *t
		c.CheckRedirect = refuse
		given, ok := c.Transport.(*http.Transport)
		if c.Transport == nil {
			given, ok = http.DefaultTransport.(*http.Transport)
		}
		if !ok || given.Proxy == nil {
			return &c, func() {}
		}
		own := given.Clone()
		own.Proxy = nil
		c.Transport = own
		return &c, own.CloseIdleConnections
	default:
		return t, func() {}
	}
}

// isDialError reports that no connection came about.
func isDialError(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
