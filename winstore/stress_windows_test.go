package winstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/azmtls/azmtls/mtls"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

const stressRounds, stressProcesses = 1000, 4

// Processes that save, load and delete at once, under aliases of their own and one that they share, find what they
// saved and nothing that they deleted, harm nobody else's entries and leave no handle open.
func TestStress(t *testing.T) {
	f := newFixture(t)
	shared := f.newAlias(uuid.NewString())
	bystanders := []string{}
	for _, name := range []string{"", "not of MSAL", "MSAL|alias=" + shared + "-other|ep=" + testEndpoint} {
		b := f.bindingFor(9 * day)
		f.plant(name, b.Certificate.Leaf, f.key.container)
		bystanders = append(bystanders, b.Thumbprint())
	}
	rounds := stressRounds
	if testing.Short() {
		rounds /= 5
	}
	var children []*Child
	for range stressProcesses {
		children = append(children, StartChild(t, "stress", shared, strconv.Itoa(rounds)))
	}
	for _, c := range children {
		t.Log(c.Wait())
	}
	for _, b := range bystanders {
		require.Equal(t, 1, count(t, b))
	}
}

// stress is one of the processes.
func stress(arguments []string) error {
	rounds, err := strconv.Atoi(arguments[1])
	if err != nil {
		return err
	}
	s := &stresser{shared: arguments[0], own: uuid.NewString()}
	name := "azmtls-test-" + s.own
	if s.key, err = newCAPIKey(name); err != nil {
		return err
	}
	defer deleteCAPIKey(name, capiProvider, windows.PROV_RSA_AES)
	if s.authority, err = newTestAuthority(); err != nil {
		return err
	}
	const sample = 50
	lost, err := growth(func() error { return s.repeat(sample, s.bare) })
	if err != nil {
		return err
	}
	start := time.Now()
	grown, err := growth(func() error { return s.repeat(rounds/2, s.round) })
	if err != nil {
		return err
	}
	if allowed := lost*s.cycles/2/sample*11/10 + 10; grown > allowed { // a tenth, since the runtime opens some of its own
		return fmt.Errorf("%d more handles are open after %d rounds; crypt32 by itself would lose %d", grown, rounds, allowed)
	}
	fmt.Printf(
		"%d rounds in %s, %d more handles (of crypt32: %d in %d), busy %d times\n",
		rounds,
		time.Since(start).Round(time.Second),
		grown,
		lost,
		sample,
		s.busy,
	)
	return nil
}

// growth returns by how many the open handles grow when f is run for a second time: the first opens what stays.
func growth(f func() error) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	before, err := openHandles()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := openHandles()
	return after - before, err
}

type stresser struct {
	shared, own string
	key         *key
	authority   testAuthority
	cycles      int // of save, load and delete
	busy        int
}

func (s *stresser) repeat(times int, round func() error) error {
	for i := range times {
		if err := round(); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	return nil
}

// bare goes through the functions of Windows that a cycle needs, with nothing of this package. Under Wine they lose
// handles of the registry; on Windows none.
func (s *stresser) bare() error {
	leaf, err := s.authority.issue(s.key.Public(), clientID, time.Now().Add(9*day))
	if err != nil {
		return err
	}
	return inTurn(turnName, turnWait, func() error {
		var provider windows.Handle
		c := s.key.container
		if err := windows.CryptAcquireContext(&provider, windows.StringToUTF16Ptr(c.name), windows.StringToUTF16Ptr(c.provider), c.providerType, 0); err != nil {
			return err
		}
		if err := windows.CryptReleaseContext(provider, 0); err != nil {
			return err
		}
		context, err := windows.CertCreateCertificateContext(encoding, &leaf.Raw[0], uint32(len(leaf.Raw)))
		if err != nil {
			return err
		}
		defer windows.CertFreeCertificateContext(context)
		for _, change := range []func(store windows.Handle) error{
			func(store windows.Handle) error {
				return windows.CertAddCertificateContextToStore(store, context, windows.CERT_STORE_ADD_NEW, nil)
			},
			func(store windows.Handle) error {
				const findExisting = 0xd0000 // CERT_FIND_EXISTING
				stored, err := windows.CertFindCertificateInStore(store, encoding, 0, findExisting, unsafe.Pointer(context), nil)
				if err != nil {
					return err
				}
				return windows.CertDeleteCertificateFromStore(stored)
			},
		} {
			store, err := windows.CertOpenStore(
				windows.CERT_STORE_PROV_SYSTEM_W,
				0,
				0,
				windows.CERT_SYSTEM_STORE_CURRENT_USER,
				uintptr(unsafe.Pointer(windows.StringToUTF16Ptr("MY"))),
			)
			if err != nil {
				return err
			}
			if err := errors.Join(change(store), certControlStore(store, 0, certStoreControlCommit, nil), windows.CertCloseStore(store, 0)); err != nil {
				return err
			}
		}
		return nil
	})
}

// round saves, loads and deletes under this process's own alias, and now and then under the shared one.
func (s *stresser) round() error {
	s.cycles++
	if s.cycles%11 == 10 {
		s.cycles++
		if err := s.quarrel(); err != nil {
			return fmt.Errorf("shared alias: %w", err)
		}
	}
	now := time.Now()
	b, err := s.binding(now)
	if err != nil {
		return err
	}
	if err := s.insist(func() error { return save(s.own, b, now) }); err != nil {
		return err
	}
	loaded, err := load(context.Background(), s.own, now)
	if err != nil {
		return fmt.Errorf("what was saved is not there: %w", err)
	}
	_ = loaded.Certificate.PrivateKey.(*key).Close()
	if loaded.Thumbprint() != b.Thumbprint() {
		return errors.New("another binding than the one that was saved is there")
	}
	if err := s.insist(func() error { return Store{}.DeleteAll(context.Background(), s.own) }); err != nil {
		return err
	}
	if left, err := storedUnder(s.own); err != nil || len(left) > 0 {
		return fmt.Errorf("%d are there after all were deleted (%v)", len(left), err)
	}
	return nil
}

// quarrel does so under the alias that all share: what is there may be another's, or nothing, but it works.
func (s *stresser) quarrel() error {
	now := time.Now()
	b, err := s.binding(now)
	if err != nil {
		return err
	}
	if err := s.unlessBusy(save(s.shared, b, now)); err != nil {
		return err
	}
	if loaded, err := load(context.Background(), s.shared, now); err == nil {
		_ = loaded.Certificate.PrivateKey.(*key).Close()
	} else if !errors.Is(err, mtls.ErrNotFound) {
		return err
	}
	return s.unlessBusy(Store{}.DeleteAll(context.Background(), s.shared))
}

// insist repeats a change until it gets its turn, which on a busy machine can take longer than a change waits.
func (s *stresser) insist(change func() error) error {
	for {
		if err := change(); !errors.Is(err, errBusy) {
			return err
		}
		s.busy++
	}
}

func (s *stresser) unlessBusy(err error) error {
	if errors.Is(err, errBusy) {
		s.busy++
		return nil
	}
	return err
}

func (s *stresser) binding(now time.Time) (*mtls.Binding, error) {
	leaf, err := s.authority.issue(s.key.Public(), clientID, now.Add(9*day))
	if err != nil {
		return nil, err
	}
	return mtls.NewBinding(leaf, s.key, testEndpoint, clientID)
}

// openHandles returns how many handles of the kernel this process has open. GetProcessHandleCount is 0 under Wine,
// always.
func openHandles() (n int, err error) {
	runtime.GC()
	for size := uint32(1 << 20); ; size *= 2 {
		words := make([]uintptr, size/8)
		err := windows.NtQuerySystemInformation(windows.SystemExtendedHandleInformation, unsafe.Pointer(&words[0]), size, nil)
		if errors.Is(err, windows.STATUS_INFO_LENGTH_MISMATCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		// SYSTEM_HANDLE_INFORMATION_EX: a count, a reserved word, entries of five words whose second is the process.
		for i := range words[0] {
			if words[2+5*i+1] == uintptr(windows.GetCurrentProcessId()) {
				n++
			}
		}
		return n, nil
	}
}
