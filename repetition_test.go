package azmtls_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// A request that does no harm twice goes out twice on fresh connections, and once before on one that had served. Not
// more often, however long the resource loses connections.
func TestRepetitionEnds(t *testing.T) {
	for _, method := range []string{
		http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodPost,
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, reused := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/reused %t", method, tls.VersionName(version), reused), func(t *testing.T) {
					t.Parallel()
					var crashes atomic.Bool
					var ran atomic.Int32
					f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: http.HandlerFunc(
						func(http.ResponseWriter, *http.Request) {
							ran.Add(1)
							if crashes.Load() {
								panic(http.ErrAbortHandler)
							}
						})}, nil)
					client := f.bound()
					_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
					require.NoError(t, err)
					if !reused {
						require.NoError(t, f.cred.Close())
					}
					crashes.Store(true)
					_, _, err = send(t.Context(), client, method, f.server.ResourceURL(), "payload")
					require.Error(t, err)
					want := 1 + 2
					switch {
					case method == http.MethodPost:
						want = 1 + 1
					case reused:
						want = 1 + 3
					}
					require.EqualValues(t, want, ran.Load())
					require.Zero(t, f.store.evicted())
				})
			}
		}
	}
}

// Before our certificate was asked for, a lost connection is one of the network's: the request goes out over two,
// whatever it is.
func TestRepetitionEndsBeforeTheCertificate(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		f := newFixture(t, imdstest.Options{}, nil)
		_, err := f.token(storage)
		require.NoError(t, err)
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtHello, Do: imdstest.EOF{}, Times: 1})
		client := f.bound()
		_, _, err = send(t.Context(), client, method, f.server.ResourceURL(), "payload")
		require.NoError(t, err)
		require.NoError(t, f.cred.Close())
		f.server.Inject(imdstest.Fault{Endpoint: imdstest.Resource, At: imdstest.AtHello, Do: imdstest.EOF{}})
		_, _, err = send(t.Context(), client, method, f.server.ResourceURL(), "payload")
		require.Error(t, err)
		require.Equal(t, 1+2, f.server.Counts().Faults)
		require.Zero(t, f.store.evicted())
	}
}

// Where the peer proves that it did not process a request, that goes out once more with a fresh binding, also one that
// must not be done twice.
func TestPostHealsWhereItWasNotProcessed(t *testing.T) {
	for name, test := range map[string]struct {
		fault   imdstest.Fault
		version uint16 // 0: both
	}{
		"reset in handshake": {imdstest.Fault{At: imdstest.AtCertificate, Do: imdstest.Reset{}}, tls.VersionTLS12},
		"EOF in handshake":   {imdstest.Fault{At: imdstest.AtCertificate, Do: imdstest.EOF{}}, tls.VersionTLS12},
		"alert 48":           {imdstest.Fault{At: imdstest.AtCertificate, Do: imdstest.Alert(48)}, 0},
		"alert 116":          {imdstest.Fault{At: imdstest.AtCertificate, Do: imdstest.Alert(116)}, tls.VersionTLS13},
		"nginx":              {imdstest.Fault{Do: nginxRefuses}, 0},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if test.version != 0 && test.version != version {
				continue
			}
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: echo}, nil)
				_, err := f.token(storage)
				require.NoError(t, err)
				fault := test.fault
				fault.Endpoint, fault.Thumbprint = imdstest.Resource, f.store.get(alias).Thumbprint()
				f.server.Inject(fault)
				_, body, err := send(t.Context(), f.bound(), http.MethodPost, f.server.ResourceURL(), "payload")
				require.NoError(t, err)
				require.Equal(t, "mtls_pop payload", body)
				require.Equal(t, 1, f.server.Counts().ResourceAuthorized, "it ran once")
				require.Equal(t, 1, f.store.evicted())
				f.noRejections()
			})
		}
	}
}

// What the caller's dialer fails with is the caller's, whichever error it chose: it is asked once, and a panic of it is
// an error.
func TestDialerThatFails(t *testing.T) {
	for name, failure := range map[string]error{
		"EOF": io.EOF, "closed": net.ErrClosed, "ECONNRESET": syscall.ECONNRESET,
		"panic": nil, "neither": errors.New("neither"),
	} {
		t.Run(name, func(t *testing.T) {
			var fails atomic.Bool
			var dialed atomic.Int32
			f := newFixture(t, imdstest.Options{}, func(o *azmtls.ImdsV2MtlsCredentialOptions) {
				o.Retry.MaxRetries = -1
				o.MTLSTransport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
					switch {
					case !fails.Load():
						return new(net.Dialer).DialContext(ctx, network, address)
					case failure == nil:
						dialed.Add(1)
						panic("bug of the caller's")
					case name == "neither":
						dialed.Add(1)
						return nil, nil
					}
					dialed.Add(1)
					return nil, failure
				}
			})
			f.plant()
			fails.Store(true)
			_, err := f.token(vault)
			switch {
			case failure == nil:
				require.ErrorContains(t, err, "bug of the caller's")
			case name == "neither":
				require.ErrorContains(t, err, "neither")
			default:
				require.ErrorIs(t, err, failure)
			}
			require.EqualValues(t, 1, dialed.Load())
			require.Zero(t, f.store.evicted())
			require.Zero(t, f.server.Counts().Issued)
		})
	}
}

// certificate_required is an alert of TLS 1.3. In TLS 1.2 it has no meaning, and refuses nothing.
func TestAlertOfAnotherVersion(t *testing.T) {
	f := newFixture(t, imdstest.Options{TLSVersion: tls.VersionTLS12}, nil)
	f.plant()
	f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Alert(116)})
	_, err := f.token(vault)
	require.Error(t, err)
	require.Zero(t, f.store.evicted())
	require.Zero(t, f.server.Counts().Issued)
}
