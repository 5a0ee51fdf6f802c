package tpmstore

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// roleVariable names the environment variable that gives a process its role in a test.
const roleVariable = "AZMTLS_TEST_ROLE"

// keyVariable names the one that holds the key of the other process, which need not make one then.
const keyVariable = "AZMTLS_TEST_KEY"

// roles are what another process does in a test.
var roles = map[string]func(arguments []string) error{
	"limited": limited, "hold": hold, "save": saveForEver, "stress": stress, "key": keyOnce, "reach": reach,
}

// child is another process.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	errors strings.Builder
}

func start(t testing.TB, role string, arguments ...string) *child {
	c := &child{t: t, cmd: exec.Command(os.Args[0], arguments...)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role, keyVariable+"="+string(unloadable().wrapped.encode()),
		"GORACE=atexit_sleep_ms=0") // the race detector would sleep for a second
	c.cmd.Stderr = &c.errors
	input, err := c.cmd.StdinPipe()
	require.NoError(t, err)
	output, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.input, c.output = input, bufio.NewReader(output)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

func (c *child) line() string {
	line, err := c.output.ReadString('\n')
	require.NoError(c.t, err, "the child says: %s", &c.errors)
	return strings.TrimSpace(line)
}

// wait lets it end and returns the rest of what it printed.
func (c *child) wait() string {
	_ = c.input.Close()
	rest, err := io.ReadAll(c.output)
	require.NoError(c.t, err)
	require.NoError(c.t, c.cmd.Wait(), "the child says: %s", &c.errors)
	return string(rest)
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// hold takes the folder's lock until it is killed.
func hold(arguments []string) error {
	f, err := openFolder(arguments[0], false)
	if err != nil {
		return err
	}
	return f.locked(context.Background(), lockWait, func() error {
		fmt.Println("held")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
}

// A process that dies with the lock leaves it to the next.
func TestHolderOfTheLockIsKilled(t *testing.T) {
	s := newShelf(t)
	s.saved()
	other := start(t, "hold", s.folder)
	require.Equal(t, "held", other.line())
	require.ErrorIs(t, s.deleteAll(t.Context(), alias), errBusy)
	other.kill()
	require.NoError(t, s.deleteAll(t.Context(), alias))
}

// saver saves bindings, each newer than the one before.
type saver struct {
	files
	authority authority
}

func newSaver(folder string) (*saver, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	good := func(*key, context.Context) error { return nil }
	return &saver{files{folder, time.Now, good}, authority{k}}, err
}

func (s *saver) save(notBefore time.Time) error {
	b, err := s.authority.binding(unloadable(), notBefore, notBefore.Add(7*day))
	if err != nil {
		return err
	}
	return s.files.save(context.Background(), alias, b)
}

// saveForEver saves until it is killed. It says with each binding when that began, before and after it was saved.
func saveForEver(arguments []string) error {
	first, err := strconv.ParseInt(arguments[1], 10, 64)
	if err != nil {
		return err
	}
	s, err := newSaver(arguments[0])
	if err != nil {
		return err
	}
	for begin := first; ; begin++ {
		fmt.Println("saving", begin)
		if err := s.save(time.Unix(begin, 0)); err != nil {
			return err
		}
		fmt.Println("saved", begin)
	}
}

// A process that is killed while it saves leaves the old binding or the new one, whole, and nothing piles up.
func TestKilledWhileSaving(t *testing.T) {
	const lanes = 4
	killings := 2000
	if testing.Short() {
		killings = 40
	}
	begin := time.Now()
	var all sync.WaitGroup
	var torn atomic.Int64
	for range lanes {
		s := newShelf(t)
		all.Go(func() {
			last := begin.Unix()
			b, err := s.authority.binding(unloadable(), begin, begin.Add(7*day))
			assert.NoError(s, err)
			assert.NoError(s, s.save(context.Background(), alias, b))
			for range killings / lanes {
				if !killOnce(s, &last, &torn) {
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf(
		"%d processes killed in %s, %d with a file half written",
		killings,
		time.Since(begin).Round(time.Millisecond),
		torn.Load(),
	)
	require.NotZero(t, torn.Load(), "some were killed at work")
	if os.Getenv("AZMTLS_RELIABILITY") == "1" {
		t.Logf(`RELIABILITY {"name":"crash","kills":%d,"survived":%d,"system":"linux, while saving"}`, killings, killings)
	}
}

// killOnce has another process save bindings that begin after the last one, kills it and looks at what it left.
func killOnce(s *shelf, last *int64, torn *atomic.Int64) bool {
	c := start(s, "save", s.folder, strconv.FormatInt(*last+1, 10))
	saving, saved := *last, *last
	note := func(line string) {
		fields := strings.Fields(line)
		n, err := strconv.ParseInt(fields[1], 10, 64)
		assert.NoError(s, err)
		if fields[0] == "saving" {
			saving = n
		} else {
			saved = n
		}
	}
	first, err := c.output.ReadString('\n')
	if !assert.NoError(s, err, &c.errors) {
		return false
	}
	note(first)
	time.Sleep(rand.N(4 * time.Millisecond)) // the process is another one: there is no clock to inject
	assert.NoError(s, c.cmd.Process.Kill())
	rest, err := io.ReadAll(c.output)
	assert.NoError(s, err)
	_ = c.cmd.Wait()
	for line := range strings.Lines(string(rest)) {
		if strings.HasSuffix(line, "\n") {
			note(line)
		}
	}
	left := temporaries(s.T, s.dir)
	torn.Add(int64(len(left)))
	b, err := s.load(context.Background(), alias)
	if !assert.NoError(s, err) {
		return false
	}
	began := b.Certificate.Leaf.NotBefore.Unix()
	*last = began
	return assert.Contains(s, []int64{saved, saving}, began) && assert.LessOrEqual(s, len(left), 1, "nothing piles up")
}

const stressRounds, stressProcesses = 500, 4

// Processes that save, load and delete at once, under aliases of their own and one that they share, find what they
// saved and nothing that they deleted, and harm nobody else's.
func TestStressOfProcesses(t *testing.T) {
	s := newShelf(t)
	s.inMemory()
	bystander := s.binding(time.Hour, 7*day)
	require.NoError(t, s.files.save(t.Context(), "bystander", bystander))
	var children []*child
	for n := range stressProcesses {
		children = append(children, start(t, "stress", s.folder, strconv.Itoa(n)))
	}
	for _, c := range children {
		t.Log(c.wait())
	}
	b, err := s.load(t.Context(), "bystander")
	require.NoError(t, err)
	require.Equal(t, bystander.Thumbprint(), b.Thumbprint())
	require.Empty(t, temporaries(t, s.dir))
	aside, err := filepath.Glob(filepath.Join(s.dir, "*"+aside))
	require.NoError(t, err)
	require.Empty(t, aside, "no file was ever seen half written")
}

// stress is one of the processes.
func stress(arguments []string) error {
	s, err := newSaver(arguments[0])
	if err != nil {
		return err
	}
	own, begin, busy := "own-"+arguments[1], time.Now(), 0
	insist := func(change func() error) error { // on a busy machine a turn can take longer than a change waits
		for {
			err := change()
			if !errors.Is(err, errBusy) {
				return err
			}
			busy++
		}
	}
	for round := range stressRounds {
		b, err := s.authority.binding(unloadable(), begin.Add(time.Duration(round)*time.Second), begin.Add(7*day))
		if err != nil {
			return err
		}
		if err := s.round(b, own, insist); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	fmt.Printf("%d rounds in %s, busy %d times", stressRounds, time.Since(begin).Round(time.Millisecond), busy)
	return nil
}

func (s *saver) round(b *mtls.Binding, own string, insist func(func() error) error) error {
	ctx := context.Background()
	if err := insist(func() error { return s.files.save(ctx, own, b) }); err != nil {
		return err
	}
	loaded, err := s.load(ctx, own)
	if err != nil || loaded.Thumbprint() != b.Thumbprint() {
		return fmt.Errorf("what was saved is not there: %w", err)
	}
	if err := insist(func() error { return s.files.save(ctx, "shared", b) }); err != nil {
		return err
	}
	if _, err := s.load(ctx, "shared"); err != nil && !errors.Is(err, mtls.ErrNotFound) {
		return err
	}
	if err := insist(func() error { return s.deleteAll(ctx, "shared") }); err != nil {
		return err
	}
	if err := insist(func() error { return s.deleteAll(ctx, own) }); err != nil {
		return err
	}
	if _, err := s.load(ctx, own); !errors.Is(err, mtls.ErrNotFound) {
		return fmt.Errorf("it is there after it was deleted: %w", err)
	}
	return nil
}

// keyOnce gets a key and says which.
func keyOnce(arguments []string) error {
	k, err := Keys{Device: arguments[0], Folder: arguments[1]}.Key(context.Background())
	if err != nil {
		return err
	}
	fmt.Printf("%s %x\n", k.Strength(), sha256.Sum256(k.Public().(*rsa.PublicKey).N.Bytes()))
	return nil
}

// reach says why nobody's user cannot reach a TPM.
func reach(arguments []string) error {
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
		return err
	}
	fmt.Println(Keys{Device: arguments[0]}.Reachable())
	return nil
}
