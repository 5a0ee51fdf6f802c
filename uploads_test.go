package azmtls_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// failing is a body that fails after some bytes, or that panics. It counts its failures.
type failing struct {
	zeros
	err    error // nil: it panics
	failed int
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.zeros.Read(p)
	if err != io.EOF {
		return n, err
	}
	f.failed++
	if f.err == nil {
		panic("bug of the caller's")
	}
	return 0, f.err
}

// declared is a body that claims to be longer than it is.
type declared struct {
	*failing
	size int64
}

func (d declared) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return d.size, nil
	}
	return d.failing.Seek(offset, whence)
}

// What the caller's own body fails with is the caller's, also where it reads like a lost connection: it comes back
// once, nothing is sent again, and the binding is left alone.
func TestBodyThatFails(t *testing.T) {
	failures := map[string]error{
		"unexpected EOF": io.ErrUnexpectedEOF,
		"closed":         net.ErrClosed,
		"ECONNRESET":     syscall.ECONNRESET,
		"EPIPE":          &net.OpError{Op: "write", Err: syscall.EPIPE},
		"time-out":       &net.DNSError{IsTimeout: true},
		"its own":        errors.New("the disk is gone"),
		"panic":          nil,
	}
	for name, failure := range failures {
		for where, sent := range map[string]int64{"at once": 0, "after 1 MiB": 1 << 20} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(tls.VersionName(version)+"/"+name+" "+where, func(t *testing.T) {
					t.Parallel()
					f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: echo}, nil)
					_, err := f.token(storage)
					require.NoError(t, err)
					planted := f.store.get(alias)
					check := func(body *failing, err error, requests int) {
						t.Helper()
						if failure == nil {
							require.ErrorContains(t, err, "bug of the caller's")
						} else {
							require.ErrorIs(t, err, failure)
						}
						require.Equal(t, 1, body.failed, "it was read once")
						require.LessOrEqual(t, f.server.Counts().Resource, requests, "no second request")
						require.Zero(t, f.store.evicted())
						require.Equal(t, 1, f.server.Counts().Issued)
						require.Same(t, planted, f.store.get(alias))
					}
					// azcore's retry policy stands above the bound client, net/http's caller above Client.
					options := &azcore.ClientOptions{Retry: policy.RetryOptions{RetryDelay: time.Millisecond}}
					f.cred.BindClientOptions(options)
					req, err := runtime.NewRequest(t.Context(), http.MethodPut, f.server.ResourceURL())
					require.NoError(t, err)
					body := &failing{zeros: zeros{size: sent}, err: failure}
					require.NoError(t, req.SetBody(declared{body, 8 << 20}, "application/octet-stream"))
					_, err = sdkClient(f.cred, options).Do(req)
					check(body, err, 1)

					body = &failing{zeros: zeros{size: sent}, err: failure}
					plain, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.server.ResourceURL(), body)
					require.NoError(t, err)
					plain.GetBody = func() (io.ReadCloser, error) { return body, nil }
					_, err = f.cred.Client(storage).Do(plain)
					check(body, err, 2)
				})
			}
		}
	}
}

// A server that finds an upload too large answers early and closes. Whether the answer or the close arrives first is a
// matter of luck, and not of the certificate.
func TestUploadThatIsTooLarge(t *testing.T) {
	tooLarge := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	for name, fault := range map[string]*imdstest.Fault{
		"and closes": nil,
		"and resets": {Endpoint: imdstest.Resource, At: imdstest.AtBody, Do: imdstest.Reset{}},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, imdstest.Options{TLSVersion: version, ResourceHandler: tooLarge}, nil)
				if fault != nil {
					f.server.Inject(*fault)
				}
				client := f.bound()
				answers := 0
				for range 60 {
					req, err := runtime.NewRequest(t.Context(), http.MethodPost, f.server.ResourceURL())
					require.NoError(t, err)
					require.NoError(t, req.SetBody(&zeros{size: 8 << 20}, "application/octet-stream"))
					resp, err := client.Do(req)
					if err == nil {
						require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
						answers++
					}
					f.clock.Advance(time.Second) // far enough apart to confirm each other, were they evidence
				}
				t.Logf("%d of 60 got the answer", answers)
				require.Zero(t, f.store.evicted())
				require.Equal(t, 1, f.server.Counts().Issued)
				require.Equal(t, 60, f.server.Counts().Resource, "each was sent once")
			})
		}
	}
}
