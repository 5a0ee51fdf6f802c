package azmtls_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// In an hour of faults at IMDS and Entra every call gets a token, or an error of the right kind, by its own deadline or
// by the limits of ours; when the faults are over, tokens come again; and when the last call has ended, nothing is left
// of it all, whether the credential is closed or not. AZMTLS_SEED repeats an hour.
func TestHourOfFaults(t *testing.T) {
	seed := seedOf(t)
	for name, closes := range map[string]bool{"closed": true, "never closed": false} {
		t.Run(name, func(t *testing.T) {
			t.Logf("AZMTLS_SEED=%d", seed)
			before := goleak.IgnoreCurrent()
			h := newHour(t, seed, closes)
			h.run()
			if closes {
				require.NoError(t, h.cred.Close())
			}
			require.Eventually(t, func() bool { return clientConnections() == 0 }, 5*time.Second, 10*time.Millisecond)
			h.server.Close()
			goleak.VerifyNone(t, before)
			t.Logf("%d calls: %v; at the simulator: %+v", h.calls, h.outcomes, h.server.Counts())
			for _, outcome := range []string{"token", "error", "gave up"} {
				require.Positive(t, h.outcomes[outcome], outcome)
			}
			require.Greater(t, h.server.Counts().Faults, h.calls/10)
		})
	}
}

// seedOf returns the seed of a test's choices.
func seedOf(t *testing.T) uint64 {
	given := os.Getenv("AZMTLS_SEED")
	if given == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(given, 10, 64)
	require.NoError(t, err)
	return seed
}

// hour is an hour of faults.
type hour struct {
	*fixture
	dice     *rand.Rand
	clear    []func() // remove the faults of the moment
	under    map[*hourCall]bool
	calls    int
	outcomes map[string]int
}

func newHour(t *testing.T, seed uint64, closes bool) *hour {
	h := &hour{dice: rand.New(rand.NewPCG(seed, 11)), under: map[*hourCall]bool{}, outcomes: map[string]int{}}
	h.fixture = newFixture(t, imdstest.Options{TokenLifetime: time.Minute, CertificateLifetime: 20 * time.Minute}, nil)
	t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", h.server.IMDSURL())
	h.clock.Manual()
	o := h.options()
	o.Transport = nil // IMDS over the credential's own connections
	if !closes {
		const soon = 50 * time.Millisecond
		o.Transport = &http.Client{Transport: &http.Transport{IdleConnTimeout: soon}}
		o.MTLSTransport.IdleConnTimeout = soon
	}
	var err error
	h.cred, err = azmtls.NewImdsV2MtlsCredential(o)
	require.NoError(t, err)
	return h
}

// run has faults come and go for an hour, and calls with them; then clear weather, until the last one has ended.
func (h *hour) run() {
	start, length := h.clock.Boot(), time.Hour
	if stride > 1 { // under the race detector and Wine it is a part of one, as the matrix is
		length /= 3
	}
	var weather, asked time.Duration // when the next comes
	var early uint64
	for {
		idle()
		h.reap()
		now := h.clock.Boot() - start
		if now >= length {
			break
		}
		if early == 0 && now >= length/4 {
			early = heap()
		}
		if now >= weather {
			h.change()
			weather = now + h.between(10*time.Second, 90*time.Second)
		}
		if now >= asked {
			for range 1 + h.dice.IntN(3) {
				h.call()
			}
			asked = now + h.between(time.Second, 10*time.Second)
			continue
		}
		step := min(weather, asked) - now
		if next, set := h.clock.Next(); set {
			step = min(step, next)
		}
		h.clock.Advance(step)
	}
	h.lift()
	for h.clock.Waiting() > 0 {
		h.advance()
		idle()
		h.reap()
	}
	require.Empty(h, h.under)
	h.clock.Advance(15 * time.Minute) // the budget has a unit again, and the pauses that IMDS asked for are over
	require.NoError(h, h.passes(h.get(h.Context(), "https://after.example")))
	landed(h, h.clock)
	h.noRejections()
	late := heap()
	h.Logf("heap after a quarter: %d KiB, at the end: %d KiB", early>>10, late>>10)
	require.Less(h, late, early+2<<20, "of the simulator too")
}

// heap returns how much memory is in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (h *hour) between(least, most time.Duration) time.Duration {
	return least + time.Duration(h.dice.Int64N(int64(most-least)))
}

// lift removes the faults of the moment.
func (h *hour) lift() {
	for _, remove := range h.clear {
		remove()
	}
	h.clear = nil
}

// change replaces the faults of the moment by others.
func (h *hour) change() {
	h.lift()
	for _, endpoint := range []imdstest.Endpoint{imdstest.Metadata, imdstest.Issue, imdstest.Token} {
		if h.dice.IntN(3) == 0 {
			continue
		}
		fault := pickFault(h.dice, endpoint)
		if h.dice.IntN(2) == 0 {
			fault.Rate = 0.2 + 0.7*h.dice.Float64()
		}
		h.clear = append(h.clear, h.server.Inject(fault))
	}
}

// pickFault picks one that the endpoint can have.
func pickFault(dice *rand.Rand, endpoint imdstest.Endpoint) imdstest.Fault {
	status := func(of ...int) int { return of[dice.IntN(len(of))] }
	stages := []imdstest.Stage{imdstest.AtRequest, imdstest.AtAnswer, imdstest.AtBody}
	overTLS := endpoint == imdstest.Token || endpoint == imdstest.Resource
	if overTLS {
		stages = append(stages, imdstest.AtConnect, imdstest.AtHello, imdstest.AtCertificate)
	}
	stage := stages[dice.IntN(len(stages))]
	pauses := []time.Duration{0, 3 * time.Second, 40 * time.Second, 10 * time.Minute}
	faults := []imdstest.Fault{
		{At: stage, Do: imdstest.Hang{}},
		{At: imdstest.AtRequest, Do: imdstest.Hang{}},
		{At: stage, Do: imdstest.Reset{}},
		{At: stage, Do: imdstest.EOF{}},
		{At: imdstest.AtAnswer, Do: imdstest.Truncate{}},
		{Do: imdstest.Malformed()},
		{Do: imdstest.Redirect()},
		{Do: imdstest.Respond{Status: status(500, 502, 503, 504)}},
		{Do: imdstest.Respond{Status: status(408, 410, 429, 503), RetryAfter: pauses[dice.IntN(len(pauses))]}},
	}
	if overTLS {
		alert := imdstest.Alert(uint8(status(42, 45, 46, 48)))
		faults = append(faults, imdstest.Fault{At: imdstest.AtCertificate, Do: alert})
	}
	switch endpoint {
	case imdstest.Token:
		faults = append(faults,
			imdstest.Fault{Do: invalidClient}, imdstest.Fault{Do: stale},
			imdstest.Fault{Do: imdstest.EntraError{OAuth: "unauthorized_client", AADSTS: "AADSTS700016"}},
		)
	case imdstest.Resource:
		faults = append(faults,
			imdstest.Fault{Do: nginxRefuses}, imdstest.Fault{Do: vaultRefuses}, imdstest.Fault{Do: challenge})
	default:
		faults = append(faults, imdstest.Fault{Do: imdstest.Respond{Status: status(400, 403, 404, 501)}})
	}
	fault := faults[dice.IntN(len(faults))]
	fault.Endpoint = endpoint
	return fault
}

// hourCall is a call that is under way.
type hourCall struct {
	begun, limit time.Duration // 0: none
	cancelled    bool          // its caller gives up by cancelling, not by a deadline
	done         chan struct{}

	// The outcome.
	ended   time.Duration
	expires time.Time
	err     error
}

// call begins one: with a deadline, with one who gives up, or without any limit; for a token that may be cached, or
// must not.
func (h *hour) call() {
	lasts := []time.Duration{0, time.Second, 10 * time.Second, 90 * time.Second}
	c := &hourCall{
		begun: h.clock.Boot(), limit: lasts[h.dice.IntN(len(lasts))], cancelled: h.dice.IntN(4) == 0, done: make(chan struct{}),
	}
	options := policy.TokenRequestOptions{Scopes: []string{fmt.Sprint("https://resource-", h.dice.IntN(4))}}
	if h.dice.IntN(3) == 0 {
		options.Claims = `{"access_token":{"nbf":{"essential":true}}}`
	}
	h.under[c] = true
	h.calls++
	go func() {
		defer close(c.done)
		ctx, cancel := h.Context(), func() {}
		switch {
		case c.limit > 0 && c.cancelled:
			ctx, cancel = context.WithCancel(ctx)
			defer h.clock.Clock().AfterFunc(c.limit, cancel)()
		case c.limit > 0:
			ctx, cancel = h.clock.Clock().WithTimeout(ctx, c.limit)
		}
		defer cancel()
		token, err := h.cred.GetToken(ctx, options)
		c.ended, c.expires, c.err = h.clock.Boot(), token.ExpiresOn, err
	}()
}

// reap looks at the calls that have ended.
func (h *hour) reap() {
	for c := range h.under {
		select {
		case <-c.done:
			delete(h.under, c)
			h.check(c)
		default:
		}
	}
}

func (h *hour) check(c *hourCall) {
	took, most := c.ended-c.begun, limits.Token+2*time.Second
	if c.limit > 0 {
		most = c.limit
	}
	require.LessOrEqual(h, took, most, "%v", c.err)
	gaveUp := c.limit > 0 && took >= c.limit
	if c.err == nil {
		h.outcomes["token"]++
		require.True(h, c.expires.After(h.clock.Wall()))
		return
	}
	text := c.err.Error()
	var failure *azmtls.AuthenticationError
	var final interface{ NonRetriable() }
	require.ErrorAs(h, c.err, &final, text) // azidentity's credential-unavailable error has no name
	isFailure := errors.As(c.err, &failure)
	require.True(h, isFailure || strings.Contains(text, "IMDS"), "unavailable is IMDS alone: %s", text)
	if gaveUp {
		h.outcomes["gave up"]++
		want := context.DeadlineExceeded
		if c.cancelled {
			want = context.Canceled
		}
		require.ErrorIs(h, c.err, want)
		return
	}
	h.outcomes["error"]++
	require.NotErrorIs(h, c.err, context.Canceled, "nobody cancelled it: %s", text)
	if took < limits.Mint {
		require.NotErrorIs(h, c.err, context.DeadlineExceeded, text)
	}
}

// clientConnections returns how many connections the clients of the process have.
func clientConnections() int {
	stacks := make([]byte, 8<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "net/http.(*persistConn).readLoop(")
}
