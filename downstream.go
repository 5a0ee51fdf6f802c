package azmtls

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls/internal/callers"
	"github.com/azmtls/azmtls/internal/eventlog"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/keyvault"
	"github.com/azmtls/azmtls/internal/template"
	"github.com/azmtls/azmtls/internal/tokencache"
	"github.com/azmtls/azmtls/mtls"
)

// BindClientOptions makes the Azure SDK client that is created with these options use proof-of-possession tokens of
// this credential: they go out with the scheme mtls_pop, over connections that present the certificate they are bound
// to, and a certificate that the resource refuses is replaced, like one that Entra refuses. Requests with the tokens of
// other credentials pass untouched, over the caller's own Transport, or one like MTLSTransport without a certificate. A
// request whose connection was lost is sent once more only if that does no harm: see [mtls.Transport.RoundTrip].
//
// It must be called before the client is created, which copies its options. The log tells, once, of clients that seem
// to have been bound too late or to another credential ([EventAuthentication]). A client that sends its token elsewhere
// than in Authorization: Bearer gets a bearer token, bound or not: those of Cosmos DB and container registries do. Nil
// options are left alone, and binding twice is as binding once.
//
// A request with a bound token follows no redirect. Without a Transport of the caller's, one with a bearer token does,
// and the token goes along on the same host, over https, only.
func (c *ImdsV2MtlsCredential) BindClientOptions(options *azcore.ClientOptions) {
	if !c.made() || options == nil || slices.ContainsFunc(options.PerCallPolicies, c.clients.isMark) {
		return
	}
	c.clients.unused.Add(1)
	c.clients.bind(options, &markPolicy{binder: c.clients})
}

// binder is what the clients that are bound to a credential have of it.
type binder struct {
	tokens   *tokencache.Cache
	bindings *bindings
	current  func(context.Context, *tokencache.Entry) (*tokencache.Entry, error) // the token to send instead
	plain    *http.Client                                                        // presents no certificate
	unused   atomic.Int32                                                        // bound options that no client has used yet
	hints    hints
	observer *eventlog.Observer
}

func newBinder(
	tokens *tokencache.Cache, b *bindings, current func(context.Context, *tokencache.Entry) (*tokencache.Entry, error),
	observer *eventlog.Observer,
) *binder {
	plain := template.Clone(b.template)
	callers.GuardTransport(plain)
	return &binder{
		tokens:   tokens,
		bindings: b,
		current:  current,
		observer: observer,
		plain:    &http.Client{Transport: plain, CheckRedirect: leaveToken},
	}
}

// bind adds policies to the options and sets their transport.
func (b *binder) bind(options *azcore.ClientOptions, mark *markPolicy) {
	options.PerCallPolicies = append(slices.Clip(options.PerCallPolicies), mark)
	options.PerRetryPolicies = append(slices.Clip(options.PerRetryPolicies),
		mtls.NewRecoveryPolicy(b.bindings.rejected), popPolicy{b})
	next := options.Transport
	if next == nil {
		next = b.plain
	}
	options.Transport = boundTransport{b, next}
}

func (b *binder) isMark(p policy.Policy) bool {
	mark, ok := p.(*markPolicy)
	return ok && mark.binder == b
}

// markedContext is the context of a request of a bound client. It tells GetToken that the client can use a bound token,
// and the transport of the client over which connections the request goes. A request has one of its own, from its first
// policy on.
type markedContext struct {
	context.Context
	binder    *binder
	transport *mtls.Transport // nil: that of the client
	reached   bool            // an attempt came to it
}

// markKey is of the credential that the client is bound to, nil for any.
type markKey struct{ binder *binder }

// Value answers for the credential that the client is bound to: a client may be bound to several. It is observed too.
func (m *markedContext) Value(key any) any {
	switch key := key.(type) {
	case markKey:
		if key.binder == m.binder || key.binder == nil {
			return m
		}
	case eventlog.ObserverKey:
		return m.binder.observer
	}
	return m.Context.Value(key)
}

// marked returns the context of a request of a client that is bound to the credential, nil for that of another client.
func (b *binder) marked(ctx context.Context) *markedContext {
	m, _ := ctx.Value(markKey{b}).(*markedContext)
	return m
}

// isMarked reports whether the client is bound to any credential.
func isMarked(ctx context.Context) bool { return ctx.Value(markKey{}) != nil }

// boundTransport sends a request over the connections of the binding whose token it carries, and any other over next.
type boundTransport struct {
	binder *binder
	next   policy.Transporter
}

func (t boundTransport) Do(req *http.Request) (*http.Response, error) {
	if m := t.binder.marked(req.Context()); m != nil && m.transport != nil {
		m.reached = true
		return m.transport.Do(req)
	}
	if t.binder.issued(req) != nil {
		return nil, failure.NonRetriable(errors.New("azmtls: a proof-of-possession token would go out without its " +
			"certificate, since policies that BindClientOptions added were taken out of the client's options; call it last"))
	}
	return t.next.Do(req)
}

// issued returns the bound token of ours that a request carries, nil if it carries none.
func (b *binder) issued(req *http.Request) *tokencache.Entry {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if scheme != tokencache.SchemeBearer && scheme != tokencache.SchemePoP {
		return nil
	}
	return b.tokens.Issued(token)
}

// markPolicy gives a request its markedContext. There is one for all clients with the same options.
type markPolicy struct {
	binder *binder
	used   atomic.Bool // it does not count as unused any more
}

func (p *markPolicy) Do(req *policy.Request) (*http.Response, error) {
	if !p.used.Load() && p.used.CompareAndSwap(false, true) {
		p.binder.unused.Add(-1)
	}
	return req.WithContext(&markedContext{Context: req.Raw().Context(), binder: p.binder}).Next()
}

// popPolicy sends a request that carries a bound token of ours the way such a token must be sent (RFC 8705): with its
// scheme, on a connection with its certificate. Which token and connection is decided for every request anew.
type popPolicy struct{ binder *binder }

func (p popPolicy) Do(req *policy.Request) (*http.Response, error) {
	raw := req.Raw()
	marked := p.binder.marked(raw.Context())
	if marked == nil { // somebody took the options apart: without markPolicy there is no way to choose the connection
		return req.Next()
	}
	if marked.transport != nil && keyvault.IsHost(raw.URL.Hostname()) {
		raw.Header.Del(keyvault.Header) // which the attempt before, with a bound token, has set
	}
	marked.transport = nil
	issued := p.binder.issued(raw)
	if issued == nil {
		return req.Next()
	}
	current, err := p.binder.current(raw.Context(), issued)
	if err != nil {
		return nil, err
	}
	if !current.Key.Bound { // meanwhile Entra stopped binding tokens for the resource
		raw.Header.Set("Authorization", tokencache.SchemeBearer+" "+current.Token.Token)
		raw.Header.Del(keyvault.Header)
		return req.Next()
	}
	raw.Header["Authorization"][0] = current.Authorization // the value is this request's own
	marked.transport = p.binder.bindings.of(current.Binding)
	if keyvault.IsHost(raw.URL.Hostname()) {
		raw.Header.Set(keyvault.Header, "true")
	}
	if body := req.Body(); body != nil {
		raw.GetBody = func() (io.ReadCloser, error) { // azcore's own hands out a body that net/http would close for good
			_, err := body.Seek(0, io.SeekStart)
			return io.NopCloser(body), err
		}
	}
	resp, err := req.Next()
	if err == nil && !marked.reached {
		p.binder.say(
			raw.Context(),
			&p.binder.hints.bypassed,
			"a proof-of-possession token went to %s without its certificate: "+
				"the client's Transport is another than BindClientOptions set; "+
				"set yours before, and it goes on serving other tokens",
			raw.URL.Host,
		)
	}
	return resp, err
}
