package storetest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest/storetest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// memory is a Store in memory. Its flaw, where it has one, is what the suite must find.
type memory struct {
	mu      sync.Mutex
	entries map[string]*mtls.Binding
	flaw    string
}

func (s *memory) Load(ctx context.Context, alias string) (*mtls.Binding, error) {
	if err := ctx.Err(); err != nil && s.flaw != "deaf" {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.entries[s.name(alias)]
	switch {
	case b == nil && s.flaw == "nil for nothing":
		return nil, nil
	case b == nil || s.flaw != "keeps expired" && !time.Now().Before(b.UsableUntil()):
		return nil, mtls.ErrNotFound
	}
	loaded := *b
	switch s.flaw {
	case "loses the leaf":
		loaded.Certificate.Leaf = nil
	case "loses the endpoint":
		loaded.Endpoint = ""
	case "loses the client id":
		loaded.ClientID = ""
	case "loses the key":
		loaded.Certificate.PrivateKey = nil
	}
	return &loaded, nil
}

func (s *memory) Save(ctx context.Context, alias string, b *mtls.Binding) error {
	if err := ctx.Err(); err != nil && s.flaw != "deaf" {
		return err
	}
	if s.flaw != "takes anything" && (b == nil || b.Certificate.Leaf == nil || b.Certificate.PrivateKey == nil) {
		return errors.New("this is no binding")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.entries[s.name(alias)]
	switch {
	case old == nil || s.flaw == "last wins", s.flaw != "expired counts" && !time.Now().Before(old.UsableUntil()):
	case old.Certificate.Leaf.NotBefore.After(b.Certificate.Leaf.NotBefore):
		return nil
	}
	s.entries[s.name(alias)] = b
	return nil
}

func (s *memory) DeleteAll(ctx context.Context, alias string) error {
	if err := ctx.Err(); err != nil && s.flaw != "deaf" {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flaw == "deletes all" {
		clear(s.entries)
	}
	if s.flaw == "nothing to delete" && s.entries[alias] == nil {
		return mtls.ErrNotFound
	}
	if s.flaw != "deletes nothing" {
		delete(s.entries, s.name(alias))
	}
	return nil
}

func (s *memory) name(alias string) string {
	switch s.flaw {
	case "folds case":
		return strings.ToLower(alias)
	case "cuts names":
		return alias[:min(len(alias), 255)]
	case "ignores the suffix":
		alias, _, _ := strings.Cut(alias, "#")
		return alias
	}
	return alias
}

func subject(flaw string) storetest.Subject {
	shared := &memory{entries: map[string]*mtls.Binding{}, flaw: flaw}
	return storetest.Subject{Open: func(*testing.T) mtls.Store {
		if flaw == "private" {
			return &memory{entries: map[string]*mtls.Binding{}}
		}
		return shared
	}}
}

// A store that is right passes, and the race detector has nothing to say.
func TestRun(t *testing.T) { storetest.Run(t, subject("")) }

const flawVariable = "AZMTLS_TEST_FLAW"

// Each flaw is found: the suite fails in a process of its own.
func TestFlaws(t *testing.T) {
	if flaw := os.Getenv(flawVariable); flaw != "" {
		storetest.Run(t, subject(flaw))
		return
	}
	for _, flaw := range []string{
		"deaf", "nil for nothing", "keeps expired", "loses the leaf", "loses the endpoint", "loses the client id",
		"loses the key", "takes anything", "last wins", "expired counts", "deletes all", "deletes nothing",
		"nothing to delete", "folds case", "ignores the suffix", "private",
	} {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestFlaws$")
			cmd.Env = append(os.Environ(), flawVariable+"="+flaw)
			output, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(output), "--- FAIL")
			require.NotContains(t, string(output), "panic", "the suite tells what is wrong")
		})
	}
}
