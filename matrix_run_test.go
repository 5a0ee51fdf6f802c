package azmtls_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

const payload = "a payload of a few bytes"

// run is one cell on its way. Its cleanups run when the cell has ended.
type run struct {
	testing.TB
	*cell
	f        *fixture
	client   runtime.Pipeline
	cleanups []func()

	made     atomic.Int32 // keys so far
	armed    atomic.Bool
	strikes  atomic.Int32 // of what goes wrong on this side of the wire
	handled  atomic.Int32 // requests that the resource got whole
	garbled  atomic.Bool  // one of them was not what the caller sent
	deceived atomic.Bool  // an impostor got a request
	planted  *mtls.Binding
	base     imdstest.Counts // when the fault was armed
}

func (r *run) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// runCell runs a cell and notes what was seen.
func runCell(t *testing.T, c *cell) {
	r := &run{TB: t, cell: c}
	defer func() {
		for len(r.cleanups) > 0 {
			last := len(r.cleanups) - 1
			r.cleanups[last]()
			r.cleanups = r.cleanups[:last]
		}
	}()
	r.f = newFixture(r, imdstest.Options{TLSVersion: c.tls, ResourceHandler: http.HandlerFunc(r.serve)}, r.edit)
	r.client = r.f.bound()
	r.f.store.put("other#att=0", &mtls.Binding{})
	if r.origin == stored {
		r.plant()
	}
	r.prepare()
	var outcomes []outcome
	for range c.calls() {
		o := r.call()
		outcomes = append(outcomes, o)
		if o.result == "ok" {
			break
		}
		r.f.clock.Advance(300 * time.Millisecond)
	}
	c.seen, c.complaints = outcomes, r.complainAbout(outcomes)
}

// edit gives the credential what of this side of the wire can go wrong.
func (r *run) edit(o *azmtls.ImdsV2MtlsCredentialOptions) {
	o.Retry.MaxRetries = -1
	o.KeyProvider = r
	if r.leg != legToken {
		o.TokenType = azmtls.TokenTypeMtlsPoP
	}
	if r.fault.proxy != nil {
		o.MTLSTransport.Proxy = proxyOf(r)
	}
	if r.fault.dial == nil && r.fault.impostor == nil {
		return
	}
	var elsewhere string
	if r.fault.impostor != nil {
		o.MTLSTransport.TLSClientConfig.RootCAs.AddCert(impostors().root)
		elsewhere = r.impostor()
	}
	o.MTLSTransport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		switch {
		case !r.strike():
		case r.fault.dial != nil:
			return nil, r.fault.dial()
		default:
			addr = elsewhere
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

// strike reports whether something on this side of the wire goes wrong now.
func (r *run) strike() bool {
	if !r.armed.Load() {
		return false
	}
	n := r.strikes.Add(1)
	return n == 1 || r.often != once
}

// Key is the key provider of the cell. The first key is that of the binding that the fault begins with.
func (r *run) Key(context.Context) (mtls.Key, error) {
	number := r.made.Add(1)
	return &key{PrivateKey: testKey(), strength: mtls.StrengthSoftware, broken: func() error {
		if r.fault.sign == nil || (number > 1 && r.often != every) || !r.armed.Load() {
			return nil
		}
		return r.fault.sign(r)
	}}, nil
}

// plant puts a binding into the store, as an earlier process left it.
func (r *run) plant() {
	k, err := r.Key(r.Context())
	require.NoError(r, err)
	leaf, err := r.f.server.IssueCertificate(k.Public(), clientID)
	require.NoError(r, err)
	r.f.store.put(alias, &mtls.Binding{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: k, Leaf: leaf},
		Endpoint:    r.f.server.TokenURL() + "/" + tenant,
		ClientID:    clientID,
	})
}

// serve is the resource.
func (r *run) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err == nil {
		r.handled.Add(1)
		if string(body) != payload && req.Method != http.MethodGet {
			r.garbled.Store(true)
		}
	}
	fmt.Fprint(w, "an answer of a few bytes")
}

// prepare brings the cell to where the fault is to be met, and arms it.
func (r *run) prepare() {
	if r.leg == legToken && r.conn == fresh && r.origin == memory {
		var armed atomic.Bool // the certificate is known between its issue and its first use
		r.f.store.onSave = func(b *mtls.Binding) {
			if armed.CompareAndSwap(false, true) {
				r.arm(b)
			}
		}
		return
	}
	ctx := context.Background()
	if r.leg != legToken { // the token that the client's policy will ask for
		_, err := r.f.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{storage}, EnableCAE: true})
		require.NoError(r, err)
	}
	if r.conn != fresh {
		if r.leg == legToken {
			_, err := r.f.token(storage)
			require.NoError(r, err)
		} else {
			result, err := r.send(ctx, legGET, nil)
			require.NoError(r, err)
			require.Equal(r, "ok", result)
		}
	}
	if r.conn == answered {
		require.NoError(r, r.f.cred.Close())
	}
	r.arm(r.f.store.get(alias))
}

// arm makes the fault happen from now on.
func (r *run) arm(b *mtls.Binding) {
	r.planted = b
	r.handled.Store(0)
	r.base = r.f.server.Counts()
	if r.fault.recreate {
		r.f.server.Recreate(anotherID)
	}
	if f := r.fault.inject; f.Do != nil {
		f.Endpoint = imdstest.Resource
		if r.leg == legToken {
			f.Endpoint = imdstest.Token
		}
		switch {
		case r.often == once:
			f.Times = 1
		case r.often == always && !r.fault.blind:
			f.Thumbprint = b.Thumbprint()
		}
		r.f.server.Inject(f)
	}
	r.armed.Store(true)
}

// send sends a request to the resource.
func (r *run) send(ctx context.Context, method leg, body io.ReadSeeker) (result string, err error) {
	req, err := runtime.NewRequest(ctx, string(method), r.f.server.ResourceURL())
	require.NoError(r, err)
	if !r.fault.unasked {
		req.Raw().Header.Set("x-ms-tokenboundauth", "true")
	}
	if body != nil {
		require.NoError(r, req.SetBody(streaming.NopCloser(body), "text/plain"))
	}
	resp, err := r.client.Do(req)
	switch {
	case err != nil:
		return resultOf(err), err
	case resp.StatusCode == http.StatusOK:
		return "ok", nil
	}
	return "answer", nil
}

func resultOf(err error) string {
	var refusal *mtls.Refusal
	if errors.As(err, &refusal) {
		return "refusal"
	}
	return "error"
}

// bodyOf returns the body of the cell's request, nil if it has none.
func (r *run) bodyOf() io.ReadSeeker {
	switch {
	case r.leg == legGET:
		return nil
	case r.fault.body == nil:
		return strings.NewReader(payload)
	}
	return &failingBody{Reader: strings.NewReader(payload), run: r}
}
