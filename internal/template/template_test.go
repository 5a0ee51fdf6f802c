package template_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/azmtls/azmtls/internal/template"
	"github.com/stretchr/testify/require"
)

// A template keeps its settings, and what is done to the clone is not done to it: the template is the user's.
func TestCloneOfTheUsers(t *testing.T) {
	config := &tls.Config{ServerName: "users"}
	users := &http.Transport{IdleConnTimeout: time.Hour, MaxIdleConns: 7, TLSClientConfig: config}
	clone := template.Clone(users)
	require.Equal(t, time.Hour, clone.IdleConnTimeout)
	require.Equal(t, 7, clone.MaxIdleConns)
	require.Zero(t, clone.MaxIdleConnsPerHost, "it is the user's to say")
	clone.TLSClientConfig.ServerName = "ours"
	clone.IdleConnTimeout = 0
	require.Equal(t, "users", users.TLSClientConfig.ServerName)
	require.Equal(t, time.Hour, users.IdleConnTimeout)
}

// Without a template the defaults are net/http's, but that a host may keep as many idle connections as all of them:
// net/http's 2 would have every burst of requests to the one token endpoint dial anew.
func TestCloneOfNil(t *testing.T) {
	defaults := http.DefaultTransport.(*http.Transport)
	clone := template.Clone(nil)
	require.NotSame(t, defaults, clone)
	require.Positive(t, clone.MaxIdleConns)
	require.Equal(t, clone.MaxIdleConns, clone.MaxIdleConnsPerHost)
	require.Equal(t, defaults.IdleConnTimeout, clone.IdleConnTimeout)
	require.Equal(t, defaults.TLSHandshakeTimeout, clone.TLSHandshakeTimeout)
	require.NotNil(t, clone.Proxy)
	require.Zero(t, defaults.MaxIdleConnsPerHost, "net/http's own is left alone")
}

type roundTripper struct{}

func (roundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, http.ErrNotSupported
}

// A program may have wrapped http.DefaultTransport, or replaced it: by a recorder or a tracer, for example. The proxy
// of the environment and all limits still apply.
func TestCloneOfNilWhereTheDefaultWasReplaced(t *testing.T) {
	defaults := http.DefaultTransport
	want := template.Clone(nil)
	t.Cleanup(func() { http.DefaultTransport = defaults })
	http.DefaultTransport = roundTripper{}
	clone := template.Clone(nil)
	require.NotNil(t, clone.Proxy)
	require.NotNil(t, clone.DialContext, "it has a limit of its own")
	fields := func(t *http.Transport) map[string]any {
		values := map[string]any{}
		of := reflect.ValueOf(t).Elem()
		for i := range of.NumField() {
			switch field := of.Type().Field(i); field.Type.Kind() {
			case reflect.Int, reflect.Int64, reflect.Bool:
				if field.IsExported() {
					values[field.Name] = of.Field(i).Interface()
				}
			}
		}
		return values
	}
	require.Equal(t, fields(want), fields(clone), "as if nobody had replaced it")
}

// What would present another certificate than the binding's, or none, is refused with what to do about it.
func TestCheck(t *testing.T) {
	with := func(config *tls.Config) *http.Transport { return &http.Transport{TLSClientConfig: config} }
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	useful := with(&tls.Config{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, ServerName: "host"})
	useful.DialContext, useful.Proxy = dial, http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy"})
	dialsTLS, dialsTLSOfOld := with(&tls.Config{}), with(&tls.Config{})
	dialsTLS.DialTLSContext = dial
	//lint:ignore SA1019 who set the deprecated dialer must learn of it as well
	dialsTLSOfOld.DialTLS = func(string, string) (net.Conn, error) { return nil, net.ErrClosed }
	given := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, net.ErrClosed }
	for name, test := range map[string]struct {
		template *http.Transport
		says     string
	}{
		"nil":                     {nil, ""},
		"clone of defaults":       {template.Clone(nil), ""},
		"empty TLS config":        {with(&tls.Config{}), ""},
		"all that is of use":      {useful, ""},
		"TLS 1.2 at most":         {with(&tls.Config{MaxVersion: tls.VersionTLS12}), ""},
		"TLS 1.1 at most":         {with(&tls.Config{MaxVersion: tls.VersionTLS11}), "raise TLSClientConfig"},
		"no TLS config":           {&http.Transport{}, "no TLSClientConfig"},
		"dials TLS":               {dialsTLS, "DialContext instead"},
		"dials TLS of old":        {dialsTLSOfOld, "DialContext instead"},
		"own certificate":         {with(&tls.Config{Certificates: []tls.Certificate{{}}}), "certificate of its own"},
		"certificate by callback": {with(&tls.Config{GetClientCertificate: given}), "certificate of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			err := template.Check(test.template)
			if test.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.says)
		})
	}
}

// Where the template sets no limit, a connection is not idle for ever.
func TestIdleConnectionsEnd(t *testing.T) {
	users := &http.Transport{}
	require.Equal(t, 90*time.Second, template.Clone(users).IdleConnTimeout)
	require.Zero(t, users.IdleConnTimeout)
}
