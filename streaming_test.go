package azmtls_test

import (
	"fmt"
	"io"
	"net/http"
	gruntime "runtime"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/stretchr/testify/require"
)

// zeros is a body of a given size that needs no memory.
type zeros struct{ size, offset int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.offset >= z.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.size-z.offset))
	clear(p[:n])
	z.offset += int64(n)
	return n, nil
}

func (z *zeros) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += z.offset
	case io.SeekEnd:
		offset += z.size
	}
	z.offset = offset
	return offset, nil
}

func (*zeros) Close() error { return nil }

// Uploads stream: what is allocated for 256 MiB stays far below 256 MiB, through a bound client and through Client, also when
// the certificate is refused and the body sent again.
func TestUploadsStream(t *testing.T) {
	const size = 256 << 20
	f := newFixture(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})}, nil)
	allocated := func(upload func()) uint64 {
		var before, after gruntime.MemStats
		gruntime.ReadMemStats(&before)
		upload()
		gruntime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	client, plain := f.bound(), f.cred.Client(storage)
	_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.NoError(t, f.cred.Close())
	f.server.Refuse(f.store.get(alias).Thumbprint(), 48)
	require.Less(t, allocated(func() {
		req, err := runtime.NewRequest(t.Context(), http.MethodPut, f.server.ResourceURL())
		require.NoError(t, err)
		require.NoError(t, req.SetBody(&zeros{size: size}, "application/octet-stream"))
		resp, err := client.Do(req)
		require.NoError(t, err)
		body, err := runtime.Payload(resp)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(size), string(body))
	}), uint64(size/4))
	require.Equal(t, 2, f.server.Counts().Issued)
	require.Less(t, allocated(func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.server.ResourceURL(), &zeros{size: size})
		require.NoError(t, err)
		resp, err := plain.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, fmt.Sprint(size), string(body))
	}), uint64(size/4))
	f.noRejections()
}
