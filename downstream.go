package azmtls

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
)

// BindClientOptions makes the Azure SDK client that is created with these options use proof-of-possession tokens of this
// credential: they go out with the scheme mtls_pop, over connections that present the certificate they are bound to, and a
// certificate that the resource refuses is replaced, like one that Entra refuses. Requests with the tokens of other credentials
// pass untouched, over the caller's own Transport, or one like MTLSTransport without a certificate. A request whose connection
// was lost before the response began is sent again, as azcore's own retry policy does.
//
// It must be called before the client is created. Nil options are left alone, and binding twice is as binding once.
func (c *ImdsV2MtlsCredential) BindClientOptions(options *azcore.ClientOptions) {
	if options == nil || slices.Contains(options.PerCallPolicies, policy.Policy(markPolicy{c})) {
		return
	}
	options.PerCallPolicies = append(slices.Clip(options.PerCallPolicies), markPolicy{c})
	options.PerRetryPolicies = append(slices.Clip(options.PerRetryPolicies), mtls.NewRecoveryPolicy(c.recoverResource), confirmPolicy{c})
	next := options.Transport
	if next == nil {
		next = c.plainClient(nil)
	}
	options.Transport = boundTransport{c, next}
}

// boundContext is the context of a request of a bound client. It tells GetToken that the client can use a bound token, and the
// transport of the client over which connections the request goes. A request has one of its own, from its first policy on.
type boundContext struct {
	context.Context
	c         *ImdsV2MtlsCredential
	transport *mtls.Transport // nil: those of the client
}

type boundKey struct{ c *ImdsV2MtlsCredential }

// Value answers for the credential that the client is bound to: a client may be bound to several.
func (b *boundContext) Value(key any) any {
	if key, ok := key.(boundKey); ok && key.c == b.c {
		return b
	}
	return b.Context.Value(key)
}

// bound returns the context of a request of a client that is bound to the credential, nil for that of another client.
func (c *ImdsV2MtlsCredential) bound(ctx context.Context) *boundContext {
	b, _ := ctx.Value(boundKey{c}).(*boundContext)
	return b
}

// boundTransport sends a request over the connections of the binding whose token it carries, and any other over next.
type boundTransport struct {
	c    *ImdsV2MtlsCredential
	next policy.Transporter
}

func (t boundTransport) Do(req *http.Request) (*http.Response, error) {
	if b := t.c.bound(req.Context()); b != nil && b.transport != nil {
		return b.transport.Do(req)
	}
	return t.next.Do(req)
}

// markPolicy gives a request its boundContext.
type markPolicy struct{ c *ImdsV2MtlsCredential }

func (p markPolicy) Do(req *policy.Request) (*http.Response, error) {
	return req.WithContext(&boundContext{Context: req.Raw().Context(), c: p.c}).Next()
}

// recoverResource evicts a binding that a resource rejected.
func (c *ImdsV2MtlsCredential) recoverResource(ctx context.Context, rejection *mtls.BindingRejectedError) bool {
	c.refused.Store(true)
	return c.evict(ctx, rejection, rejection.Host)
}

// confirmPolicy sends a request that carries a bound token of ours the way such a token must be sent (RFC 8705): with its
// scheme, on a connection with its certificate. Which token and connection is decided for every request anew.
type confirmPolicy struct{ c *ImdsV2MtlsCredential }

func (p confirmPolicy) Do(req *policy.Request) (*http.Response, error) {
	raw := req.Raw()
	bound := p.c.bound(raw.Context())
	if bound == nil { // somebody took the options apart: without markPolicy there is no way to choose the connection
		return req.Next()
	}
	scheme, token, _ := strings.Cut(raw.Header.Get("Authorization"), " ")
	issued := p.c.tokens.Issued(token)
	if issued == nil || (scheme != tokencache.SchemeBearer && scheme != tokencache.SchemePoP) {
		bound.transport = nil
		return req.Next()
	}
	current, err := p.c.current(raw.Context(), issued)
	if err != nil {
		return nil, err
	}
	raw.Header.Set("Authorization", current.Authorization)
	if !current.Key.Bound { // meanwhile Entra stopped binding tokens for the resource
		bound.transport = nil
		return req.Next()
	}
	b := current.Binding
	bound.transport = p.c.pools.of(b)
	if demandsTokenBinding(raw.URL.Hostname()) {
		raw.Header.Set("x-ms-tokenboundauth", "true")
	}
	if body := req.Body(); body != nil {
		raw.GetBody = func() (io.ReadCloser, error) { // azcore's own hands out a body that net/http would close for good
			_, err := body.Seek(0, io.SeekStart)
			return io.NopCloser(body), err
		}
	}
	resp, err := req.Next()
	if err != nil {
		return nil, err
	}
	if evidence := refusal(resp); evidence != nil {
		return nil, &mtls.BindingRejectedError{Binding: b, Host: raw.URL.Host, Err: evidence}
	}
	if p.c.refused.Load() {
		p.c.options.Cache.Accepted(p.c.source, b, raw.URL.Host)
	}
	return resp, nil
}

// current returns the token to send in the place of one that was issued here: itself, or, when it is not valid any more, the
// one that GetToken would give now. A client's own policy may hold a token for long after its binding was evicted.
func (c *ImdsV2MtlsCredential) current(ctx context.Context, issued *tokencache.Entry) (*tokencache.Entry, error) {
	if c.tokens.Valid(issued) {
		return issued, nil
	}
	if e, _ := c.tokens.Get(issued.Key); e != nil {
		return e, nil
	}
	return c.token(ctx, issued.Key, "")
}

// tokenBindingHosts are the domains of Key Vault and Managed HSM in all clouds. Only with a header of its own does the service
// ask for the certificate.
var tokenBindingHosts = []string{
	".vault.azure.net", ".managedhsm.azure.net",
	".vault.usgovcloudapi.net", ".managedhsm.usgovcloudapi.net",
	".vault.azure.cn", ".managedhsm.azure.cn",
}

func demandsTokenBinding(host string) bool {
	return slices.ContainsFunc(tokenBindingHosts, func(domain string) bool { return strings.HasSuffix(strings.ToLower(host), domain) })
}

// refusal returns the evidence when a resource says in HTTP, not in TLS, that it does not take the certificate.
func refusal(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusBadRequest:
		if bytes.Contains(peek(resp), []byte("The SSL certificate error")) {
			return errors.New("the resource answered 400 The SSL certificate error, as nginx does to a client certificate that it does not accept")
		}
	case http.StatusUnauthorized:
		if bytes.Contains(peek(resp), []byte("MtlsCnfClaimRequestDataValidationFailed")) {
			return errors.New("the resource answered 401 MtlsCnfClaimRequestDataValidationFailed, as Key Vault does when token and certificate do not match")
		}
	}
	return nil
}

// peekSize is how much of an error response is looked at, in bytes.
const peekSize = 4 << 10

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
