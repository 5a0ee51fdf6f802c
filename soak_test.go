package azmtls_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	gruntime "runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/imdstest"
	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const (
	soakGoroutines  = 200
	soakScopes      = 30
	soakCredentials = 2 // each as a process of its own, over one store
	soakRhythm      = 5 * time.Second
	soakWindow      = 20 * time.Minute // how long a certificate is good for tokens
)

// Two hundred goroutines use tokens of thirty scopes, in bound clients and others, of two credentials that share a
// store, while everything around them fails at random: IMDS, Entra and the resource at every stage, the store, the
// clock, the memory, their own patience. Every call ends in time and in the right way; no token travels with another
// certificate; no body arrives changed, and none that is not to be repeated twice; evictions and mints stay within the
// budget; and when it is over nothing is left. AZMTLS_SOAK says how long, AZMTLS_SEED repeats the choices.
func TestSoak(t *testing.T) {
	length := 5 * time.Second
	if given := os.Getenv("AZMTLS_SOAK"); given != "" {
		var err error
		length, err = time.ParseDuration(given)
		require.NoError(t, err)
	}
	seed := seedOf(t)
	t.Logf("AZMTLS_SEED=%d", seed)
	before, handles := goleak.IgnoreCurrent(), openHandles(t)
	s := newSoak(t, seed)
	s.run(length)
	s.closeAll()
	goleak.VerifyNone(t, before)
	require.Eventually(t, func() bool { return openHandles(t) <= handles }, 5*time.Second, 10*time.Millisecond, "handles")
	s.report(length)
}

// soak is what the goroutines live in.
type soak struct {
	*testing.T
	seed     uint64
	dice     *rand.Rand // of the weather
	clock    *clock.Fake
	server   *imdstest.Server
	plain    *http.Client // of clients that are not bound
	store    *unreliableStore
	services []*soakService
	clear    []func()
	began    time.Duration
	renewed  time.Duration // when the clients were made anew
	jumps    int           // of the wall clock
	early    uint64
	bodies   soakBodies
	stop     chan struct{}
	users    sync.WaitGroup

	calls, served, failed, gaveUp, recovered atomic.Int64
	slept                                    atomic.Int64 // by the machine, in nanoseconds
	mu                                       sync.Mutex
	wrong                                    []string
}

// soakService is what one process has.
type soakService struct {
	cred    *azmtls.ImdsV2MtlsCredential
	clients atomic.Pointer[soakClients]

	evicted, minted, renewed atomic.Int64
}

// soakClients are clients of one process, by scope. They are made anew every hour: azcore's bearer policy goes by the
// real clock, and would hold its tokens for ever.
type soakClients struct {
	bound, unbound []runtime.Pipeline
	plain          []*http.Client
}

func newSoak(t *testing.T, seed uint64) *soak {
	s := &soak{
		T: t, seed: seed, dice: rand.New(rand.NewPCG(seed, 0)), clock: clock.NewFake(time.Now()),
		stop: make(chan struct{}),
	}
	s.clock.Manual()
	s.began, s.renewed = s.clock.Boot(), s.clock.Boot()
	start := s.clock.Wall()
	s.store = &unreliableStore{dice: rand.New(rand.NewPCG(seed, math.MaxUint64))}
	s.server = imdstest.NewServer(&imdstest.Options{
		TenantID: tenant, ClientID: clientID, TokenLifetime: 5 * time.Minute,
		CertificateLifetime: 48 * time.Hour, TokenNotAfter: soakWindow,
		ResourceHandler: http.HandlerFunc(s.bodies.serve),
		Time:            func() time.Time { return start.Add(s.clock.Boot() - s.began) }, // it is right, whatever ours says
	})
	s.plain = &http.Client{Transport: s.server.MTLSTransport(), CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	for range soakCredentials {
		s.services = append(s.services, s.newService())
	}
	return s
}

func (s *soak) newService() *soakService {
	v := &soakService{}
	o := &azmtls.ImdsV2MtlsCredentialOptions{
		ClientOptions: s.server.ClientOptions(), MTLSTransport: s.server.MTLSTransport(),
		KeyProvider: &keys{}, Store: s.store, Cache: &mtls.Cache{Clock: s.clock.Clock()},
		Observer: func(e azmtls.Event) {
			switch e.Step {
			case azmtls.StepEviction:
				v.evicted.Add(1)
			case azmtls.StepMint:
				v.minted.Add(1)
			case azmtls.StepRenewal:
				v.renewed.Add(1)
			}
		},
	}
	o.Retry = policy.RetryOptions{RetryDelay: time.Microsecond, MaxRetryDelay: 5 * time.Microsecond}
	var err error
	v.cred, err = azmtls.NewImdsV2MtlsCredential(o)
	require.NoError(s, err)
	v.clients.Store(s.newClients(v.cred))
	return v
}

func (s *soak) newClients(cred *azmtls.ImdsV2MtlsCredential) *soakClients {
	c := &soakClients{}
	once := policy.RetryOptions{MaxRetries: -1}
	for n := range soakScopes {
		bearer := func() runtime.PipelineOptions {
			return runtime.PipelineOptions{PerRetry: []policy.Policy{
				runtime.NewBearerTokenPolicy(cred, []string{soakScope(n)}, nil),
			}}
		}
		// Bearer tokens, which a client gets where Entra declined a bound one, go over a transport of its own.
		options := &azcore.ClientOptions{Retry: once, Transport: s.plain}
		cred.BindClientOptions(options)
		c.bound = append(c.bound, runtime.NewPipeline("soak", "v1", bearer(), options))
		plain := &azcore.ClientOptions{Retry: once, Transport: s.plain}
		c.unbound = append(c.unbound, runtime.NewPipeline("soak", "v1", bearer(), plain))
		client := cred.Client(soakScope(n))
		client.CheckRedirect = s.plain.CheckRedirect // the simulator takes a redirect that is followed for a fault
		c.plain = append(c.plain, client)
	}
	return c
}

func soakScope(n int) string { return fmt.Sprintf("https://resource-%d.example/.default", n) }

// complain notes a decision that was wrong.
func (s *soak) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) < 20 {
		s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
	}
}

// run has the users call while the weather changes, then ends it all in clear weather.
func (s *soak) run(length time.Duration) {
	for n := range soakGoroutines {
		u := &soakUser{soak: s, number: n, dice: rand.New(rand.NewPCG(s.seed, uint64(n)+1))}
		s.users.Go(u.live)
	}
	end, weather := time.Now().Add(length), s.clock.Boot()
	quarter := time.Now().Add(length / 4)
	for time.Now().Before(end) {
		s.pause()
		if s.early == 0 && time.Now().After(quarter) {
			s.early = heap()
		}
		if s.clock.Boot() >= weather {
			s.change()
			weather = s.clock.Boot() + time.Duration(5+s.dice.IntN(25))*time.Second
		}
		s.advance(weather - s.clock.Boot())
	}
	s.lift()
	s.store.behave(storeWorks)
	close(s.stop)
	done := make(chan struct{})
	go func() { s.users.Wait(); close(done) }()
	for limit := time.Now().Add(time.Minute + length); ; {
		select {
		case <-done:
			s.afterwards()
			return
		default:
		}
		require.True(s, time.Now().Before(limit), "calls never end")
		s.pause()
		s.advance(time.Minute)
	}
}

// pause waits until nothing more can happen before time passes.
func (s *soak) pause() {
	idleWithin(50)                // it is no matter if the clock now and then goes on too early
	for s.store.busy.Load() > 0 { // it hangs in real time
		time.Sleep(time.Millisecond)
	}
}

// advance lets time pass until the next timer fires, and that long at the most.
func (s *soak) advance(most time.Duration) {
	step := max(0, most)
	if next, set := s.clock.Next(); set {
		step = min(step, next)
	}
	s.clock.Advance(step)
}

// afterwards says that it works again.
func (s *soak) afterwards() {
	for s.clock.Waiting() > 0 {
		s.advance(time.Hour)
		s.pause()
	}
	s.clock.Advance(20 * time.Minute) // the budgets have a unit again, and the pauses that IMDS asked for are over
	for _, v := range s.services {
		got := make(chan error, 1)
		go func() {
			_, err := v.cred.GetToken(s.Context(), policy.TokenRequestOptions{Scopes: []string{"https://after.example"}})
			got <- err
		}()
		require.NoError(s, (&fixture{TB: s, clock: s.clock}).passes(got))
	}
	for s.clock.Waiting() > 0 {
		s.advance(time.Hour)
		s.pause()
	}
}

func (s *soak) lift() {
	for _, remove := range s.clear {
		remove()
	}
	s.clear = nil
	debug.SetMemoryLimit(math.MaxInt64)
}

// change has other things fail.
func (s *soak) change() {
	s.lift()
	s.store.behave(storeWorks)
	if s.clock.Boot() > s.renewed+time.Hour {
		s.renewed = s.clock.Boot()
		for _, v := range s.services {
			v.clients.Store(s.newClients(v.cred))
		}
	}
	if s.dice.IntN(3) == 0 {
		return // clear weather
	}
	for _, endpoint := range []imdstest.Endpoint{imdstest.Metadata, imdstest.Issue, imdstest.Token, imdstest.Resource} {
		if s.dice.IntN(2) == 0 {
			continue
		}
		fault := pickFault(s.dice, endpoint)
		fault.Rate = 0.05 + 0.5*s.dice.Float64()
		s.clear = append(s.clear, s.server.Inject(fault))
	}
	if s.dice.IntN(2) == 0 {
		s.store.behave(storeBehaviour(1 + s.dice.IntN(4)))
	}
	switch s.dice.IntN(8) {
	case 0: // the wall clock is set
		s.jumps++
		s.clock.SetWall(s.clock.Wall().Add(time.Duration(s.dice.IntN(7)-3) * time.Hour))
	case 1: // the machine sleeps
		slept := time.Duration(1+s.dice.IntN(30)) * time.Minute
		s.slept.Add(int64(slept))
		s.clock.Advance(slept)
	case 2:
		debug.SetMemoryLimit(int64(inUse() + 4<<20))
	case 3: // the servers are told of another authority, and refuse what the one before has signed
		s.server.RotateAuthority()
		if b := s.store.current(); b != nil {
			for _, endpoint := range []imdstest.Endpoint{imdstest.Token, imdstest.Resource} {
				s.clear = append(s.clear, s.server.Inject(imdstest.Fault{
					Endpoint: endpoint, At: imdstest.AtCertificate, Do: imdstest.Alert(48), Thumbprint: b.Thumbprint(),
				}))
			}
		}
	case 4:
		for _, v := range s.services {
			_ = v.cred.Close() // its idle connections
		}
	}
}

// inUse returns how much memory the process holds, which is what GOMEMLIMIT is about.
func inUse() uint64 {
	var m gruntime.MemStats
	gruntime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

// closeAll ends everything, and says what is left of it.
func (s *soak) closeAll() {
	late := heap()
	s.Logf("heap after a quarter: %d KiB, at the end: %d KiB", s.early>>10, late>>10)
	// How many connections are open, and what their buffers hold, makes up to 9 MiB of difference.
	require.Less(s, late, s.early+24<<20, "of the simulator too")
	for _, v := range s.services {
		hunt.Values(v.cred.Status())
		require.NoError(s, v.cred.Close())
	}
	s.plain.CloseIdleConnections()
	for _, r := range s.server.Rejections() {
		if !strings.Contains(r.Reason, "token is expired") { // it was good when it was taken, and the machine slept then
			s.complain("the simulator: %s", r)
		}
	}
	for _, repeated := range s.bodies.wrong() {
		s.complain("%s", repeated)
	}
	s.server.Close()
	s.clockedOut()
}

// clockedOut compares evictions and mints with the budget (design, section 5.3).
func (s *soak) clockedOut() {
	lived := s.clock.Boot() - s.began
	for n, v := range s.services {
		// Nine steps to the cap of 5 minutes, which can go back by one in as long; twelve to that of an hour.
		units := int64(9+12+2) + int64(lived/(200*time.Second))
		renewals := int64(3+s.jumps) + int64(lived/(soakWindow/4))
		evicted, minted, renewed := v.evicted.Load(), v.minted.Load(), v.renewed.Load()
		s.Logf("credential %d, in %s: %d evictions, %d mints, %d renewals",
			n, lived.Round(time.Second), evicted, minted, renewed)
		if evicted > units || minted > evicted+renewals || renewed > renewals {
			s.complain("credential %d had %d evictions (of %d), %d mints and %d renewals (of %d)",
				n, evicted, units, minted, renewed, renewals)
		}
	}
}

func (s *soak) report(length time.Duration) {
	counts := s.server.Counts()
	var evicted, minted int64
	for _, v := range s.services {
		evicted, minted = evicted+v.evicted.Load(), minted+v.minted.Load()+v.renewed.Load()
	}
	s.Logf("%d calls: %d served, %d failed, %d gave up; at the simulator: %+v; of the store: %d failures",
		s.calls.Load(), s.served.Load(), s.failed.Load(), s.gaveUp.Load(), counts, s.store.faults.Load())
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		line, err := json.Marshal(map[string]any{
			"name": "soak", "calls": s.calls.Load(), "faults": int64(counts.Faults) + s.store.faults.Load(), "mints": minted,
			"evictions": evicted, "recoveries": s.recovered.Load(), "wrong": len(s.wrong),
			"seconds": int(length.Seconds()), "seed": s.seed,
		})
		require.NoError(s, err)
		s.Logf("RELIABILITY %s", line)
	}
	require.Empty(s, s.wrong)
	require.Positive(s, s.served.Load())
	require.Positive(s, counts.Faults)
}

// soakBodies are the requests that the resource got.
type soakBodies struct {
	mu    sync.Mutex
	seen  map[string]bool // of those that must not be repeated
	notes []string
}

const (
	soakID  = "X-Soak-Id"
	soakSum = "X-Soak-Sum"
)

// serve is the resource.
func (b *soakBodies) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut short, and is not taken
	}
	sum := sha256.Sum256(body)
	id := r.Header.Get(soakID)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case hex.EncodeToString(sum[:]) != r.Header.Get(soakSum):
		b.notes = append(b.notes, "the body of "+id+" arrived changed")
	case r.Method == http.MethodPost && b.seen[id]:
		b.notes = append(b.notes, "the body of "+id+" arrived twice")
	}
	if r.Method == http.MethodPost {
		if b.seen == nil {
			b.seen = map[string]bool{}
		}
		b.seen[id] = true
	}
	_, _ = w.Write(sum[:])
}

func (b *soakBodies) wrong() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.notes
}

// soakUser is one of the goroutines.
type soakUser struct {
	*soak
	number, calls int
	dice          *rand.Rand
}

// live makes calls until it is over, in a rhythm that all share, so that many come at once.
func (u *soakUser) live() {
	for {
		next := soakRhythm - (u.clock.Boot()-u.began)%soakRhythm + time.Duration(u.dice.IntN(5))*soakRhythm
		if u.clock.Clock().Wait(u.Context(), next) != nil {
			return
		}
		select {
		case <-u.stop:
			return
		default:
			u.call()
		}
	}
}

// call makes one, with or without a limit, and says what is wrong with its end.
func (u *soakUser) call() {
	u.calls++
	u.soak.calls.Add(1)
	limit := []time.Duration{0, time.Second, 10 * time.Second, 90 * time.Second}[u.dice.IntN(4)]
	cancelled := u.dice.IntN(2) == 0
	ctx, cancel := u.Context(), context.CancelFunc(func() {})
	switch {
	case limit > 0 && cancelled:
		ctx, cancel = context.WithCancel(ctx)
		defer u.clock.Clock().AfterFunc(limit, cancel)()
	case limit > 0:
		ctx, cancel = u.clock.Clock().WithTimeout(ctx, limit)
	}
	defer cancel()
	if limit == 0 { // the resource may hang, and its clients have no limit of their own
		ctx, cancel = u.clock.Clock().WithTimeout(ctx, 2*limits.Token)
		defer cancel()
	}
	began, slept := u.clock.Boot(), u.slept.Load()
	err := u.ask(ctx, u.services[u.number%len(u.services)], u.dice.IntN(soakScopes))
	took, most := u.clock.Boot()-began-time.Duration(u.slept.Load()-slept), 2*limits.Token
	if limit > 0 {
		most = limit
	}
	// Some more minutes, since on a busy machine the clock may go on before this goroutine does.
	if took > most+5*time.Minute {
		u.complain("a call took %s of %s: %v", took, most, err)
	}
	switch {
	case err == nil:
		u.served.Add(1)
	case ctx.Err() != nil:
		u.gaveUp.Add(1)
		if !errors.Is(err, ctx.Err()) {
			u.failed.Add(1) // it failed for a reason of its own at that moment
		}
	default:
		u.failed.Add(1)
		if errors.Is(err, context.Canceled) {
			u.complain("nobody cancelled it: %v", err)
		}
	}
	hunt.Values(err)
}
