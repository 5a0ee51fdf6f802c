package azmtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// callerFaults are failures of the caller's own code, with errors that would say much about a connection.
func callerFaults() (faults []*fault) {
	const subject = "The caller's own code"
	for _, how := range []struct {
		name string
		fail func() error
	}{
		{"fails with io.EOF", func() error { return io.EOF }},
		{"fails with io.ErrUnexpectedEOF", func() error { return io.ErrUnexpectedEOF }},
		{"fails with net.ErrClosed", func() error { return net.ErrClosed }},
		{"fails with ECONNRESET", func() error { return syscall.ECONNRESET }},
		{"panics", func() error { panic("the caller's own") }},
	} {
		faults = append(faults,
			&fault{
				subject: subject, name: "the body " + how.name, means: as(silent), blind: true,
				legs: []leg{legPUT, legPOST}, body: how.fail,
			},
			&fault{
				subject: subject, name: "the proxy function " + how.name, means: as(silent), blind: true,
				proxy: how.fail,
			},
			&fault{
				subject: subject, name: "the dialer " + how.name, means: as(silent), blind: true, perConnection: true,
				dial: how.fail,
			})
	}
	return faults
}

// serverFaults are servers that are not the ones that were asked for.
func serverFaults() (faults []*fault) {
	for _, server := range []struct {
		name        string
		certificate func(*impostorCertificates) tls.Certificate
	}{
		{"its authority is unknown", func(c *impostorCertificates) tls.Certificate { return c.untrusted }},
		{"its certificate has expired", func(c *impostorCertificates) tls.Certificate { return c.expired }},
		{"its name is another", func(c *impostorCertificates) tls.Certificate { return c.misnamed }},
	} {
		faults = append(faults, &fault{
			subject: "A server that is not trusted", name: server.name, means: as(silent), blind: true,
			perConnection: true, impostor: server.certificate,
		})
	}
	return faults
}

// proxyOf returns a proxy function that knows no proxy, until it fails.
func proxyOf(r *run) func(*http.Request) (*url.URL, error) {
	return func(*http.Request) (*url.URL, error) {
		if r.strike() {
			return nil, r.fault.proxy()
		}
		return nil, nil
	}
}

// failingBody is a body that fails half-way.
type failingBody struct {
	*strings.Reader
	run    *run
	failed bool
}

func (b *failingBody) Read(p []byte) (int, error) {
	if ahead := b.Len() - len(payload)/2; ahead > 0 {
		return b.Reader.Read(p[:min(len(p), ahead)])
	}
	if b.failed || b.Len() == len(payload)/2 && b.run.strike() {
		b.failed = true
		return 0, b.run.fault.body()
	}
	return b.Reader.Read(p)
}

func (b *failingBody) Seek(offset int64, whence int) (int64, error) {
	b.failed = false
	return b.Reader.Seek(offset, whence)
}

// impostorCertificates are certificates of servers on 127.0.0.1 that must not be trusted.
type impostorCertificates struct {
	root                         *x509.Certificate // trusted by those who meet an impostor
	untrusted, expired, misnamed tls.Certificate
}

var impostors = sync.OnceValue(func() *impostorCertificates {
	issue := func(name string, ip net.IP, until time.Duration, parent *tls.Certificate) *tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			IPAddresses: []net.IP{ip},
			NotBefore:   time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(until),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if parent == nil {
			template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
			parent = &tls.Certificate{Leaf: template, PrivateKey: key}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent.Leaf, key.Public(), parent.PrivateKey)
		if err != nil {
			panic(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	here := net.IPv4(127, 0, 0, 1)
	trusted, unknown := issue("trusted", here, time.Hour, nil), issue("unknown", here, time.Hour, nil)
	return &impostorCertificates{
		root:      trusted.Leaf,
		untrusted: *issue("here", here, time.Hour, unknown),
		expired:   *issue("here", here, -24*time.Hour, trusted),
		misnamed:  *issue("elsewhere", net.IPv4(127, 0, 0, 2), time.Hour, trusted),
	}
})

// impostor starts the server that the cell meets instead of the one that it asked for, and returns its address.
func (r *run) impostor() string {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{r.fault.impostor(impostors())}, MinVersion: r.tls, MaxVersion: r.tls,
		ClientAuth: tls.RequestClientCert,
	})
	require.NoError(r, err)
	deceived := func(http.ResponseWriter, *http.Request) { r.deceived.Store(true) }
	server := &http.Server{Handler: http.HandlerFunc(deceived)}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	r.Cleanup(func() { _ = server.Close(); <-done })
	return listener.Addr().String()
}
