package mtls

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azmtls/azmtls/internal/clock"
	"github.com/azmtls/azmtls/internal/failure"
	"github.com/azmtls/azmtls/internal/limits"
	"github.com/stretchr/testify/require"
)

// modelCertificates are certificates for one key, each newer than the one before. A certificate takes longer to make
// than a sequence to run.
type modelCertificates struct {
	start  time.Time
	public crypto.PublicKey
	leaves []*x509.Certificate
}

func newModelCertificates(t *testing.T) *modelCertificates {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	m := &modelCertificates{start: time.Now().Truncate(time.Second), public: k.Public()}
	for n := range 100 {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{CommonName: modelClient},
			NotBefore: m.start.Add(time.Duration(n)*time.Second - time.Hour), NotAfter: m.start.Add(7 * 24 * time.Hour),
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
		require.NoError(t, err)
		leaf, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		m.leaves = append(m.leaves, leaf)
	}
	return m
}

const modelClient = "11111111-2222-3333-4444-555555555555"

// modelKey is a key that can die.
type modelKey struct {
	public   crypto.PublicKey
	strength BindingStrength
	dead     atomic.Bool
}

func (k *modelKey) Public() crypto.PublicKey  { return k.public }
func (k *modelKey) Strength() BindingStrength { return k.strength }
func (k *modelKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	if k.dead.Load() {
		return nil, errors.New("the key is dead")
	}
	return []byte{1}, nil
}

// behaviour is how IMDS, or the store, answers.
type behaviour int

const (
	good behaviour = iota
	refusesForGood
	failsForNow
	same // IMDS issues what it issued before, unless its cache is to be bypassed
	held // IMDS answers when it is told to; the store does not answer
	behaviours
)

var errModel = errors.New("it does not work")

// modelWorld is what the entry lives in, and the model of what it must do.
type modelWorld struct {
	issued *modelCertificates
	fake   *clock.Fake
	cache  *Cache

	mu         sync.Mutex
	complaints []string
	effects    [operationCount]int
	imds       behaviour
	storing    behaviour
	used       int // certificates
	latest     *x509.Certificate
	stored     *Binding
	tried      bool // to delete what is stored
	mustDelete bool // before anything is saved
	gate       chan struct{}
	hung       chan struct{}
	minting    int
	mints      int
	given      []*Binding
	waiting    []*modelCall

	// The model.
	token, resources rationing
	paid, waits      bool
	bypass           bool // the next mint takes nothing from a cache
	barred           map[string]bool
	cause            operation // of the mint that is under way: get or renew, or pass if a binding gets old
	before           *Binding  // in memory when the mint began
	serves           bool      // it was good then
	demanded         BindingStrength
	requests         int // to IMDS in this mint
}

// modelCall is a call that is under way.
type modelCall struct {
	cancel   context.CancelFunc
	done     chan struct{}
	strength BindingStrength
	given    *Binding
	err      error
	gaveUp   bool
}

func newModelWorld(issued *modelCertificates) *modelWorld {
	w := &modelWorld{
		issued: issued, fake: clock.NewFake(issued.start), barred: map[string]bool{}, hung: make(chan struct{}),
		token: rationing{most: 5 * time.Minute}, resources: rationing{most: time.Hour},
	}
	w.fake.Manual()
	w.cache = &Cache{Clock: w.fake.Clock()}
	return w
}

func (w *modelWorld) source(strength BindingStrength) Source {
	return Source{Alias: "model", Store: w, MinStrength: strength, Mint: w.mint}
}

func (w *modelWorld) entry() *entry { return w.cache.entry(w.source(0)) }

func (w *modelWorld) complain(format string, args ...any) {
	w.complaints = append(w.complaints, fmt.Sprintf(format, args...))
}

// settle waits until all that can end has ended: what waits on after that waits for IMDS, or for time.
func (w *modelWorld) settle() {
	time.Sleep(4 * limits.Store)
	synctest.Wait()
}

func (w *modelWorld) binding(leaf *x509.Certificate, strength BindingStrength) *Binding {
	return &Binding{
		Certificate: tls.Certificate{
			Certificate: [][]byte{leaf.Raw}, Leaf: leaf, PrivateKey: &modelKey{public: w.issued.public, strength: strength},
		},
		Endpoint: "https://entra.example/tenant", ClientID: modelClient,
	}
}

// certificate returns the next one.
func (w *modelWorld) certificate() *x509.Certificate {
	w.used++
	return w.issued.leaves[w.used%len(w.issued.leaves)]
}

// mint is IMDS.
func (w *modelWorld) mint(ctx context.Context, request MintRequest) (*Binding, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.minting++; w.minting > 1 {
		w.complain("two mints at once")
	}
	defer func() { w.minting-- }()
	w.mints++
	w.requests++
	if w.requests == 1 {
		w.begin(request)
	} else if !request.BypassCache {
		w.complain("IMDS was asked again without a bypass of its cache")
	}
	if w.imds == held {
		gate := make(chan struct{})
		w.gate = gate
		w.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		w.mu.Lock()
		w.gate = nil
		if err := ctx.Err(); err != nil {
			w.failed(false)
			return nil, err
		}
	}
	switch w.imds {
	case refusesForGood:
		w.failed(true)
		return nil, failure.Definite(errModel)
	case failsForNow:
		w.failed(false)
		return nil, errModel
	}
	leaf := w.latest
	if w.imds != same || leaf == nil || request.BypassCache && w.used%2 == 0 {
		leaf = w.certificate()
	}
	w.latest = leaf
	b := w.binding(leaf, w.demanded+1)
	b.Issued = w.fake.Wall()
	if w.barred[b.Thumbprint()] && !request.BypassCache {
		return b, nil // IMDS is asked again
	}
	w.succeeded(b)
	return b, nil
}

// begin is what the model says of the beginning of a mint.
func (w *modelWorld) begin(request MintRequest) {
	current := w.entry().current.Load()
	w.before, w.serves = current, current != nil && current.usable()
	switch {
	case w.cause == renew:
		if !request.BypassCache {
			w.complain("a renewal that is demanded takes a certificate from IMDS's cache")
		}
	case w.serves && current.Strength() >= w.demanded:
		w.cause = pass
		if current.renewalIn() > 0 {
			w.complain("a mint while there is a binding that is good")
		}
	default:
		w.cause = get
		if w.waits && !w.paid {
			w.spend(&w.token, "a mint")
			w.paid = true
		}
		if w.bypass != request.FreshAttestation || w.bypass != request.BypassCache {
			w.complain("the mint asks for %+v", request)
		}
	}
}

// spend is what the model says of a unit that is spent.
func (w *modelWorld) spend(r *rationing, on string) {
	if available, known := r.certain(w.fake.Boot()); known && !available {
		w.complain("%s though there is no unit", on)
	}
	r.spend(w.fake.Boot())
}

func (w *modelWorld) failed(definite bool) {
	w.requests = 0
	if w.cause == pass || w.cause == renew && w.serves || !definite {
		return
	}
	if !w.paid {
		w.token.spend(w.fake.Boot())
	}
	w.paid, w.waits = false, true
}

func (w *modelWorld) succeeded(b *Binding) {
	w.requests = 0
	thumbprint := b.Thumbprint()
	if w.cause != get && w.serves && w.before.Thumbprint() == thumbprint {
		return // the same again is no new binding
	}
	if w.barred[thumbprint] && !w.paid {
		w.token.spend(w.fake.Boot())
	}
	delete(w.barred, thumbprint)
	w.paid, w.waits, w.bypass = false, false, false
}

// Load, Save and DeleteAll are the store.
func (w *modelWorld) Load(ctx context.Context, _ string) (*Binding, error) {
	if err := w.store(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stored == nil {
		return nil, ErrNotFound
	}
	return w.stored, nil
}

func (w *modelWorld) Save(_ context.Context, _ string, b *Binding) error {
	w.mu.Lock()
	if w.mustDelete {
		w.complain("a binding was saved before the evicted one was deleted")
	}
	w.mu.Unlock()
	if err := w.store(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored = b
	return nil
}

func (w *modelWorld) DeleteAll(context.Context, string) error {
	w.mu.Lock()
	w.tried, w.mustDelete = true, false
	w.mu.Unlock()
	if err := w.store(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored = nil
	return nil
}

// store behaves as the store does now.
func (w *modelWorld) store() error {
	w.mu.Lock()
	how, hung := w.storing, w.hung
	w.mu.Unlock()
	switch how {
	case held:
		<-hung
	case refusesForGood, failsForNow:
		return errModel
	}
	return nil
}
