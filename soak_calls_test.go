package azmtls_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/azmtls/azmtls"
	"github.com/azmtls/azmtls/mtls"
)

// ask makes one of the calls that users of a credential make.
func (u *soakUser) ask(ctx context.Context, v *soakService, scope int) error {
	c := v.clients.Load()
	switch u.dice.IntN(6) {
	case 0:
		return u.getToken(ctx, v, scope)
	case 1:
		_, b, err := v.cred.GetBoundToken(ctx, policy.TokenRequestOptions{Scopes: []string{soakScope(scope)}})
		if err == nil && b.Thumbprint() == "" {
			u.complain("a bound token without its binding")
		}
		return u.checkKind(err)
	case 2:
		return u.send(ctx, c.unbound[scope].Do)
	case 3:
		return u.send(ctx, func(req *policy.Request) (*http.Response, error) { return c.plain[scope].Do(req.Raw()) })
	default:
		return u.send(ctx, c.bound[scope].Do)
	}
}

func (u *soakUser) getToken(ctx context.Context, v *soakService, scope int) error {
	options := policy.TokenRequestOptions{Scopes: []string{soakScope(scope)}}
	if u.dice.IntN(4) == 0 {
		options.Claims = `{"access_token":{"nbf":{"essential":true}}}`
	}
	token, err := v.cred.GetToken(ctx, options)
	if err == nil && token.Token == "" {
		u.complain("a token that is none")
	}
	return u.checkKind(err)
}

// checkKind says that the error of a credential is of a kind that it documents.
func (u *soakUser) checkKind(err error) error {
	var failure *azmtls.AuthenticationError
	var final interface{ NonRetriable() }
	switch {
	case err == nil:
	case !errors.As(err, &final):
		u.complain("the client's own policy would repeat it: %v", err)
	case errors.As(err, &failure) && failure.Recovery != azmtls.RecoveryNone:
		u.recovered.Add(1)
	}
	return err
}

// send sends a request with a body of its own to the resource.
func (u *soakUser) send(ctx context.Context, do func(*policy.Request) (*http.Response, error)) error {
	method := []string{http.MethodGet, http.MethodPut, http.MethodPost}[u.dice.IntN(3)]
	id := fmt.Sprintf("%d-%d", u.number, u.calls)
	var body []byte
	if method != http.MethodGet {
		body = bytes.Repeat([]byte(id+"\n"), 1+u.dice.IntN(2000))
	}
	sum := sha256.Sum256(body)
	req, err := runtime.NewRequest(ctx, method, u.server.ResourceURL())
	if err != nil {
		return err
	}
	req.Raw().Header.Set(soakID, id)
	req.Raw().Header.Set(soakSum, hex.EncodeToString(sum[:]))
	if body != nil {
		if err := req.SetBody(streaming.NopCloser(bytes.NewReader(body)), "text/plain"); err != nil {
			return err
		}
	}
	resp, err := do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	served := err == nil && resp.StatusCode == http.StatusOK
	if served && !bytes.Equal(answer, sum[:]) && !bytes.HasPrefix(answer, []byte("{")) {
		u.complain("the answer to %s is another's", id)
	}
	return err
}

// storeBehaviour is how the store answers.
type storeBehaviour int

const (
	storeWorks storeBehaviour = iota
	storeHangs
	storeFails
	storeForgets
	storeOld // it gives what it had before
)

// unreliableStore is a store in memory that hangs, fails and forgets.
type unreliableStore struct {
	busy, faults atomic.Int64

	mu          sync.Mutex
	dice        *rand.Rand
	how         storeBehaviour
	now, before *mtls.Binding
}

func (s *unreliableStore) behave(how storeBehaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.how = how
}

func (s *unreliableStore) current() *mtls.Binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// answer behaves as the store does now, and reports whether it goes on to do what it is asked.
func (s *unreliableStore) answer(ctx context.Context) (goesOn bool, err error) {
	s.mu.Lock()
	how, struck := s.how, s.dice.IntN(2) == 0
	s.mu.Unlock()
	if how == storeWorks || !struck {
		return true, nil
	}
	s.faults.Add(1)
	switch how {
	case storeHangs:
		s.busy.Add(1)
		defer s.busy.Add(-1)
		select { // the store's limits pass in real time
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(100 * time.Millisecond):
			return true, nil
		}
	case storeFails:
		return false, errors.New("the store fails")
	}
	return false, nil
}

// Load implements mtls.Store.
func (s *unreliableStore) Load(ctx context.Context, _ string) (*mtls.Binding, error) {
	goesOn, err := s.answer(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.now
	if !goesOn && s.how == storeOld {
		b = s.before
	} else if !goesOn {
		b = nil
	}
	if b == nil {
		return nil, mtls.ErrNotFound
	}
	return b, nil
}

// Save implements mtls.Store.
func (s *unreliableStore) Save(ctx context.Context, _ string, b *mtls.Binding) error {
	goesOn, err := s.answer(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if goesOn {
		s.before, s.now = s.now, b
	}
	return err
}

// DeleteAll implements mtls.Store.
func (s *unreliableStore) DeleteAll(ctx context.Context, _ string) error {
	goesOn, err := s.answer(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if goesOn {
		s.now = nil
	}
	return err
}
