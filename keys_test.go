package azmtls_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// A key that signs no more is evicted at once, budget or not: the binding is worth nothing. Its mint waits for a unit,
// and callers get the cause at once until then.
func TestDeadKeyWhileTheBudgetIsSpent(t *testing.T) {
	for _, where := range []imdstest.Endpoint{imdstest.Token, imdstest.Resource} {
		t.Run(string(where), func(t *testing.T) {
			options := imdstest.Options{ResourceHandler: echo}
			if where == imdstest.Token {
				options.TokenLifetime = asked
			}
			f := newFixture(t, options, nil)
			var dead atomic.Bool
			f.keys.broken = func() error {
				if dead.Load() {
					return errors.New("NTE_BAD_KEYSET")
				}
				return nil
			}
			f.server.Inject(imdstest.Fault{Endpoint: imdstest.Token, Do: invalidClient, Skip: 1, Times: 1})
			client := f.bound()
			call := func() error {
				if where == imdstest.Token {
					_, err := f.asks(vault)
					return err
				}
				_, _, err := send(t.Context(), client, http.MethodGet, f.server.ResourceURL(), "")
				return err
			}
			require.NoError(t, call())
			_, err := f.asks(storage)
			require.NoError(t, err)
			require.Equal(t, 2, f.server.Counts().Issued, "the unit is spent")
			require.Equal(t, 1, f.store.evicted())
			require.NoError(t, call())

			require.NoError(t, f.cred.Close())
			dead.Store(true)
			f.keys.broken = nil
			require.ErrorContains(t, call(), "NTE_BAD_KEYSET")
			require.Equal(t, 2, f.store.evicted(), "evicted at once")
			require.Nil(t, f.store.get(alias))
			requests := f.server.Counts().Token
			for range 100 {
				_, err := f.asks(vault)
				require.ErrorContains(t, err, "NTE_BAD_KEYSET")
				var refusal *mtls.Refusal
				require.ErrorAs(t, err, &refusal)
			}
			require.Equal(t, 2, f.server.Counts().Issued, "the mint waits for a unit")
			require.Equal(t, requests, f.server.Counts().Token)

			f.clock.Advance(1200 * time.Millisecond)
			require.NoError(t, call())
			require.Equal(t, 3, f.server.Counts().Issued)
			require.Equal(t, 2, f.store.evicted())
		})
	}
}

// failsAt returns what the n-th signature from now on fails with, and how to count from now on.
func failsAt(failure error, when func(n int32) bool) (broken func() error, from func()) {
	var counting atomic.Bool
	var n atomic.Int32
	return func() error {
		if counting.Load() && when(n.Add(1)) {
			return failure
		}
		return nil
	}, func() { counting.Store(true) }
}

// A key that is busy says nothing of itself: neither where it was to sign, nor where a lost connection has it probed.
func TestKeyThatCannotSignNow(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, test := range map[string]struct {
			when func(n int32) bool
			lost int // connections
			want error
		}{
			"in a handshake": {func(int32) bool { return true }, 0, mtls.ErrKeyNotNow},
			"when probed":    {func(n int32) bool { return n == 2 }, 1, nil},
		} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				f := newFixture(t, imdstest.Options{TLSVersion: version}, nil)
				broken, from := failsAt(fmt.Errorf("TPM_RC_RETRY: %w", mtls.ErrKeyNotNow), test.when)
				f.keys.broken = broken
				planted := f.plant()
				if test.lost > 0 {
					f.server.Inject(imdstest.Fault{
						Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Reset{}, Times: test.lost,
					})
				}
				from()
				_, err := f.token(vault)
				require.ErrorIs(t, err, test.want)
				require.Equal(t, test.lost, f.server.Counts().Faults)
				require.Zero(t, f.store.evicted())
				require.Zero(t, f.server.Counts().Issued)
				require.Same(t, planted, f.store.get(alias))
			})
		}
	}
}

// One lost connection is enough when the key, which signed for it, signs no more when it is probed.
func TestDeadKeyIsFoundByTheProbe(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			f := newFixture(t, imdstest.Options{TLSVersion: version}, nil)
			broken, from := failsAt(errors.New("NTE_BAD_KEYSET"), func(n int32) bool { return n > 1 })
			f.keys.broken = broken
			f.plant()
			f.keys.broken = nil
			f.server.Inject(imdstest.Fault{
				Endpoint: imdstest.Token, At: imdstest.AtCertificate, Do: imdstest.Reset{}, Times: 1,
			})
			from()
			_, err := f.token(vault)
			require.NoError(t, err)
			require.Equal(t, 1, f.server.Counts().Faults)
			require.Empty(t, f.clock.Waits(), "nothing was waited for")
			require.Equal(t, 1, f.server.Counts().Issued)
			require.Equal(t, 1, f.store.evicted())
		})
	}
}
