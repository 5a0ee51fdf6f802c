package azmtls_test

import (
	"fmt"
	"io"
	"net/http"
	gruntime "runtime"
	"sync/atomic"
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

// Uploads stream: while 256 MiB go through a bound client, or through Client, the heap stays far below 256 MiB, also
// when the certificate is refused and the body sent again.
func TestUploadsStream(t *testing.T) {
	const size, step = 256 << 20, 32 << 20
	var peak atomic.Uint64
	f := newFixture(t, imdstest.Options{ResourceHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var total int64
		for {
			n, err := io.CopyN(io.Discard, r.Body, step)
			total += n
			var now gruntime.MemStats
			gruntime.ReadMemStats(&now)
			peak.Store(max(peak.Load(), now.HeapAlloc))
			if err != nil {
				break
			}
		}
		fmt.Fprint(w, total)
	})}, nil)
	client, plain := f.bound(), f.cred.Client(storage)
	_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
	require.NoError(t, err)
	require.NoError(t, f.cred.Close())
	f.server.Refuse(f.store.get(alias).Thumbprint(), 48)

	azure, err := runtime.NewRequest(t.Context(), http.MethodPut, f.server.ResourceURL())
	require.NoError(t, err)
	require.NoError(t, azure.SetBody(&zeros{size: size}, "application/octet-stream"))
	resp, err := client.Do(azure)
	require.NoError(t, err)
	body, err := runtime.Payload(resp)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(size), string(body))
	require.Equal(t, 2, f.server.Counts().Issued)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.server.ResourceURL(), &zeros{size: size})
	require.NoError(t, err)
	resp, err = plain.Do(req)
	require.NoError(t, err)
	body, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, fmt.Sprint(size), string(body))

	require.Less(t, peak.Load(), uint64(size/4))
	f.noRejections()
}
