package mtls

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// record returns a TLS record of a type, with n bytes in it.
func record(kind byte, n int) []byte {
	return append([]byte{kind, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...)
}

func recordsOf(kinds ...byte) (out []byte) {
	for _, kind := range kinds {
		out = append(out, record(kind, 100)...)
	}
	return out
}

const (
	ccs  = recordChangeCipherSpec
	hs   = recordHandshake
	data = 23
)

// Whether a client certificate went out shows in how many handshake records come before the ChangeCipherSpec, however
// the bytes are cut up, and whatever a proxy was told before.
func TestRecordsTellWhatWasSent(t *testing.T) {
	for name, test := range map[string]struct {
		kinds []byte
		sent  bool
		idle  bool
	}{
		"TLS 1.2 with a certificate":             {[]byte{hs, hs, hs, hs, ccs, hs}, true, true},
		"TLS 1.2 without":                        {[]byte{hs, hs, ccs, hs, data}, false, true},
		"TLS 1.2 with an empty one":              {[]byte{hs, hs, hs, ccs, hs}, false, true},
		"TLS 1.2, not flushed yet":               {[]byte{hs}, false, false},
		"TLS 1.3":                                {[]byte{hs, ccs, data, data, data}, false, false},
		"TLS 1.3 after a HelloRetryRequest":      {[]byte{hs, ccs, hs, data, data, data}, false, true},
		"renegotiation with a certificate":       {[]byte{hs, hs, ccs, hs, data, hs, hs, hs, hs, ccs, hs}, true, true},
		"renegotiation without":                  {[]byte{hs, hs, ccs, hs, data, hs, hs, ccs, hs}, false, true},
		"renegotiation with an empty one":        {[]byte{hs, hs, ccs, hs, data, hs, hs, hs, ccs, hs}, false, true},
		"renegotiation under way":                {[]byte{hs, hs, ccs, hs, data, hs}, false, false},
		"a certificate first, none in the other": {[]byte{hs, hs, hs, hs, ccs, hs, data, hs, hs, ccs, hs}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []int{1, 3, 5, 7, 104, 1000, 1 << 20} {
				var r records
				r.follow([]byte("CONNECT host:443 HTTP/1.1\r\n\r\n"))
				bytes := recordsOf(test.kinds...)
				require.False(t, r.begun)
				r.follow(bytes[:min(6, len(bytes))]) // crypto/tls writes whole records
				for rest := bytes[min(6, len(bytes)):]; len(rest) > 0; rest = rest[min(step, len(rest)):] {
					r.follow(rest[:min(step, len(rest))])
				}
				require.Equal(t, test.sent, r.sent, "step %d", step)
				require.Equal(t, test.idle, r.idle(), "step %d", step)
			}
		})
	}
}

// Ten renegotiations may begin on a connection; the eleventh is not even answered, so it costs no signature.
func TestRenegotiationsAreLimited(t *testing.T) {
	c := newConnection(discard{})
	write := func(kinds ...byte) error {
		_, err := c.Write(recordsOf(kinds...))
		return err
	}
	require.NoError(t, write(hs))
	require.NoError(t, write(hs, ccs, hs))
	for range maxRenegotiations {
		require.NoError(t, write(data))
		require.NoError(t, write(hs), "ClientHello")
		require.True(t, c.renegotiating())
		require.NoError(t, write(hs, hs, hs, ccs, hs))
	}
	require.NoError(t, write(data), "the connection goes on")
	require.ErrorIs(t, write(hs), errRenegotiations)
}

// A renegotiation is under way from its ClientHello until both sides have changed to its keys; the first handshake is
// none, once it has ended.
func TestRenegotiating(t *testing.T) {
	for _, test := range []struct {
		written, read records
		want          bool
	}{
		{records{}, records{}, false},
		{records{handshakes: 3}, records{}, false},
		{records{changes: 1}, records{}, false},
		{records{changes: 1, handshakes: 1}, records{}, true},
		{records{changes: 1, handshakes: 1}, records{changes: 1}, false},
		{records{changes: 1, handshakes: 2}, records{changes: 1}, true},
		{records{changes: 2, handshakes: 1}, records{changes: 1}, true},
		{records{changes: 2, handshakes: 1}, records{changes: 2}, false},
	} {
		c := newConnection(discard{})
		c.written, c.read = test.written, test.read
		require.Equal(t, test.want, c.renegotiating(), "%+v %+v", test.written, test.read)
	}
}
