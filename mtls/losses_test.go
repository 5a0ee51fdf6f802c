package mtls_test

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// losing is a resource that loses every connection over which a request came, and a Transport for it.
type losing struct {
	*imdstest.Server
	cache     *mtls.Cache
	source    mtls.Source
	binding   *mtls.Binding
	transport *mtls.Transport
	clock     *clock.Fake
}

func newLosing(t *testing.T) *losing {
	server, b := issued(t, imdstest.Options{})
	l := &losing{Server: server, clock: clock.NewFake(time.Now())}
	l.cache, l.source = at(l.clock), (&minter{t: t, again: b}).source("a", nil)
	var err error
	l.binding, err = l.cache.GetOrMint(t.Context(), l.source)
	require.NoError(t, err)
	l.transport = mtls.NewTransport(server.MTLSTransport(), l.binding)
	server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, Do: imdstest.Reset{}})
	return l
}

// lose sends a POST, which is not repeated, and reports whether its loss refuses the binding.
func (l *losing) lose(t *testing.T) bool {
	t.Helper()
	err := post(t, l.transport, l.ResourceURL())
	require.Error(t, err)
	return isRefusal(err)
}

// Two lost connections confirm each other when they are at least 250 ms and at most 5 minutes apart. The first one
// counts; after 5 minutes another takes its place.
func TestLossesConfirmEachOther(t *testing.T) {
	for _, test := range []struct {
		after     []time.Duration // the loss before
		confirmed bool
	}{
		{[]time.Duration{249 * time.Millisecond}, false},
		{[]time.Duration{250 * time.Millisecond}, true},
		{[]time.Duration{100 * time.Millisecond, 149 * time.Millisecond}, false},
		{[]time.Duration{100 * time.Millisecond, 150 * time.Millisecond}, true},
		{[]time.Duration{5 * time.Minute}, true},
		{[]time.Duration{5*time.Minute + time.Millisecond}, false},
		{[]time.Duration{6 * time.Minute, 249 * time.Millisecond}, false},
		{[]time.Duration{6 * time.Minute, 250 * time.Millisecond}, true},
		{[]time.Duration{6 * time.Minute, 6 * time.Minute, 6 * time.Minute}, false},
	} {
		l := newLosing(t)
		require.False(t, l.lose(t), "one loss is no evidence")
		confirmed := false
		for _, d := range test.after {
			require.False(t, confirmed)
			l.clock.Advance(d)
			confirmed = l.lose(t)
		}
		require.Equal(t, test.confirmed, confirmed, "%v", test.after)
	}
}

// An answer between two losses clears the first, whatever the answer is: a connection that is lost now and then says
// nothing.
func TestAnswerClearsALoss(t *testing.T) {
	for _, endpoint := range []imdstest.Endpoint{imdstest.Token, imdstest.Resource} {
		for _, status := range []int{200, 404, 500} {
			server, b := issued(t, imdstest.Options{TLSVersion: tls.VersionTLS12})
			now := clock.NewFake(time.Now())
			b, err := at(now).GetOrMint(t.Context(), (&minter{t: t, again: b}).source("a", nil))
			require.NoError(t, err)
			transport := mtls.NewTransport(server.MTLSTransport(), b)
			url := server.TokenURL()
			if endpoint == imdstest.Resource {
				url = server.ResourceURL()
			}
			server.Inject(imdstest.Fault{Endpoint: endpoint, Do: imdstest.Respond{Status: status}})
			for n := range 5 {
				server.Inject(imdstest.Fault{
					Endpoint: endpoint, At: imdstest.AtCertificate, Do: imdstest.Reset{}, Times: 1,
				})
				require.NoError(t, post(t, transport, url))
				require.Equal(t, 2*(n+1), server.Counts().Faults, "a loss, and an answer")
				transport.CloseIdleConnections()
				now.Advance(time.Second)
			}
		}
	}
}

// A binding that was evicted meanwhile is not presented: the request ends as a refusal of it, and nothing is sent.
func TestEvictedBindingIsNotPresented(t *testing.T) {
	l := newLosing(t)
	require.True(t, l.cache.RemoveBadCert(t.Context(), l.source, refusal(l.binding, "")))
	require.True(t, l.lose(t))
	require.Zero(t, l.Counts().ResourceConnections)
}

// An answer that breaks off before its header is complete has begun: the server took the certificate, or told why not,
// and crashed.
func TestAnswerThatBreaksOff(t *testing.T) {
	for begun, evidence := range map[string]bool{"": true, "H": false, "HTTP/1.1 200 OK\r\nContent-": false} {
		certified := httptest.NewUnstartedServer(nil)
		certified.StartTLS() // for its certificate
		defer certified.Close()
		listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: certified.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert,
		})
		require.NoError(t, err)
		defer listener.Close()
		var arrived atomic.Int32
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func(conn net.Conn) {
					defer conn.Close()
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
						arrived.Add(1)
						_, _ = conn.Write([]byte(begun))
					}
				}(conn)
			}
		}()
		b, now := admitted(t)
		template := certified.Client().Transport.(*http.Transport).Clone()
		transport := mtls.NewTransport(template, b)
		url := "https://" + listener.Addr().String()
		require.False(t, isRefusal(post(t, transport, url)))
		now.Advance(time.Second)
		err = post(t, transport, url)
		require.Error(t, err)
		require.Equal(t, evidence, isRefusal(err), "%q", begun)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader("payload"))
		require.NoError(t, err)
		before := arrived.Load()
		_, err = transport.Do(req)
		require.Error(t, err)
		if !evidence {
			require.EqualValues(t, 1, arrived.Load()-before, "what was answered is not repeated")
		}
	}
}
