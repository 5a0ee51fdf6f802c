package tpmstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/azmtls/azmtls/imdstest/storetest"
	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

// The store is one, on a real TPM.
func TestStore(t *testing.T) {
	tpm := startTPM(t)
	folder := t.TempDir()
	storetest.Run(t, storetest.Subject{
		Open: func(*testing.T) mtls.Store { return Store{Folder: folder} },
		Key: func(t *testing.T) mtls.Key {
			k, err := Keys{Device: tpm.Socket, Folder: folder}.Key(t.Context())
			require.NoError(t, err)
			require.Equal(t, mtls.StrengthTPM, k.Strength())
			return k
		},
	})
}

// A fresh binding counts more than one that lives longer.
func TestFreshCountsMore(t *testing.T) {
	s := newShelf(t)
	require.NoError(t, s.save(t.Context(), alias, s.binding(3*day, 30*day)))
	fresh := s.binding(time.Hour, 7*day)
	require.NoError(t, s.save(t.Context(), alias, fresh))
	require.Equal(t, fresh.Thumbprint(), s.loaded())
}

func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o777} {
		s := newShelf(t)
		old := syscall.Umask(umask)
		thumbprint, file := s.saved()
		syscall.Umask(old)
		folder, err := os.Stat(s.dir)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), folder.Mode().Perm())
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		require.Equal(t, thumbprint, s.loaded())
	}
}

// Looking into a store that nobody has used makes no folder.
func TestLoadMakesNoFolder(t *testing.T) {
	s := newShelf(t)
	require.Empty(t, s.loaded())
	require.NoError(t, s.deleteAll(t.Context(), alias))
	require.NoDirExists(t, s.dir)
}

// A file that is no binding is set aside, with an event; it costs no token and is in nobody's way.
func TestUnfitFilesAreSetAside(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, file string){
		"empty":            write(func([]byte) []byte { return nil }),
		"cut off":          write(func(b []byte) []byte { return b[:len(b)/2] }),
		"cut off a little": write(func(b []byte) []byte { return b[:len(b)-1] }),
		"one bit":          write(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }),
		"more at its end":  write(func(b []byte) []byte { return append(b, '\n') }),
		"foreign":          write(func([]byte) []byte { return []byte("-----BEGIN CERTIFICATE-----\n") }),
		"of a version to come": write(func(b []byte) []byte {
			return bytes.Replace(b, []byte("azmtls binding v1"), []byte("azmtls binding v2"), 1)
		}),
		"no JSON, checksum good":  write(func([]byte) []byte { return append([]byte(headLine([]byte("{"))), '{') }),
		"of another alias":        edited(func(r *record) { r.Alias = "other#att=0" }),
		"without a certificate":   edited(func(r *record) { r.Certificate = nil }),
		"without a key":           edited(func(r *record) { r.Key = "" }),
		"with plain http":         edited(func(r *record) { r.Endpoint = "http://evil.example/tenant" }),
		"with no client id":       edited(func(r *record) { r.ClientID = "nobody" }),
		"with another file's key": edited(func(r *record) { r.Key = string(otherKey().encode()) }),
		"readable by all": func(t *testing.T, file string) {
			require.NoError(t, os.Chmod(file, 0o644))
		},
		"writable by the group": func(t *testing.T, file string) {
			require.NoError(t, os.Chmod(file, 0o620))
		},
		"a symbolic link": func(t *testing.T, file string) {
			require.NoError(t, os.Rename(file, file+".moved"))
			require.NoError(t, os.Symlink(file+".moved", file))
		},
		"a dangling link": func(t *testing.T, file string) {
			require.NoError(t, os.Remove(file))
			require.NoError(t, os.Symlink("nowhere", file))
		},
		"a folder": func(t *testing.T, file string) {
			require.NoError(t, os.Remove(file))
			require.NoError(t, os.MkdirAll(filepath.Join(file, "deep"), 0o700))
		},
		"a pipe": func(t *testing.T, file string) {
			require.NoError(t, os.Remove(file))
			require.NoError(t, syscall.Mkfifo(file, 0o600))
		},
		"of another user": func(t *testing.T, file string) {
			if os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			require.NoError(t, os.Chown(file, 65534, 65534))
		},
		"1 GB": func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 1<<30)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			_, file := s.saved()
			events := logged(t, "is not used")
			spoil(t, file)
			listed, err := s.list(t.Context())
			require.NoError(t, err)
			require.Len(t, listed, 1)
			require.Error(t, listed[0].Err, "List tells, and leaves it where it is")
			require.Empty(t, events())
			require.Empty(t, s.loaded())
			require.Len(t, events(), 1)
			require.Contains(t, events()[0], "it is set aside")
			_, err = os.Lstat(file)
			require.ErrorIs(t, err, os.ErrNotExist)
			_, err = os.Lstat(file + aside)
			require.NoError(t, err)
			require.Empty(t, s.loaded())
			require.Len(t, events(), 1, "once")

			thumbprint, file := s.saved()
			require.Equal(t, thumbprint, s.loaded())
			spoil(t, file)
			fresh := s.binding(time.Minute, 7*day)
			require.NoError(t, s.save(t.Context(), alias, fresh), "saving needs no look before")
			require.Equal(t, fresh.Thumbprint(), s.loaded())
			require.NoError(t, s.deleteAll(t.Context(), alias))
			left, err := os.ReadDir(s.dir)
			require.NoError(t, err)
			for _, e := range left {
				require.Equal(t, filepath.Base(file)+".moved", e.Name(), "nothing else is left")
			}
		})
	}
}

func write(spoil func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, file string) {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, spoil(data), 0o600))
	}
}

func edited(edit func(*record)) func(*testing.T, string) {
	return write(func(data []byte) []byte {
		r, err := decodeRecord(data)
		if err != nil {
			panic(err)
		}
		edit(&r)
		data, err = r.encode()
		if err != nil {
			panic(err)
		}
		return data
	})
}

// otherKey returns a key that no certificate is for.
func otherKey() wrapped {
	w := unloadable().wrapped
	w.public = bytes.Clone(w.public)
	w.public[len(w.public)-1] ^= 2
	return w
}

// What a process that died left behind goes with the next save; what is not ours stays.
func TestSweep(t *testing.T) {
	s := newShelf(t)
	s.inMemory()
	s.saved()
	for range 10_000 {
		f, err := os.CreateTemp(s.dir, temporary)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	foreign := filepath.Join(s.dir, "notes.txt")
	require.NoError(t, os.WriteFile(foreign, nil, 0o600))
	for range 11 {
		start := time.Now()
		s.saved()
		require.Less(t, time.Since(start), 2*time.Second, "a token does not wait for it")
	}
	left, err := filepath.Glob(filepath.Join(s.dir, temporary+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.FileExists(t, foreign)
}

// A binding whose key is dead is deleted; one whose TPM cannot be used now stays.
func TestLoadProvesTheKey(t *testing.T) {
	s := newShelf(t)
	thumbprint, file := s.saved()
	s.proof = errors.New("the TPM is busy")
	_, err := s.load(t.Context(), alias)
	require.ErrorIs(t, err, s.proof)
	require.NotErrorIs(t, err, mtls.ErrNotFound, "it is there")
	s.proof = nil
	require.Equal(t, thumbprint, s.loaded())

	events := logged(t, "orphaned")
	s.proof = errDead
	require.Empty(t, s.loaded())
	require.NoFileExists(t, file)
	require.Len(t, events(), 1)
}

// A look at a binding that another process replaces meanwhile deletes nothing of the other's.
func TestWhatWasReplacedStays(t *testing.T) {
	s := newShelf(t)
	_, file := s.saved()
	var fresh *mtls.Binding
	s.prove = func(*key, context.Context) error {
		fresh = s.binding(time.Minute, 7*day)
		require.NoError(t, s.save(t.Context(), alias, fresh))
		return errDead
	}
	require.Empty(t, s.loaded())
	require.FileExists(t, file)
	s.prove = func(*key, context.Context) error { return nil }
	require.Equal(t, fresh.Thumbprint(), s.loaded())
}

func TestLoadWants24Hours(t *testing.T) {
	s := newShelf(t)
	b := s.binding(time.Hour, 7*day)
	require.NoError(t, s.save(t.Context(), alias, b))
	limit := b.Certificate.Leaf.NotAfter.Add(-day)
	s.now = func() time.Time { return limit }
	require.Empty(t, s.loaded(), "exactly 24 hours are too few")
	s.now = func() time.Time { return limit.Add(-time.Second) }
	require.Equal(t, b.Thumbprint(), s.loaded(), "a second more is enough")
}

// What has expired goes when something is saved, even if that has expired itself.
func TestSavePrunesExpired(t *testing.T) {
	s := newShelf(t)
	_, file := s.saved()
	s.now = func() time.Time { return time.Now().Add(8 * day) }
	require.NoError(t, s.save(t.Context(), alias, s.binding(2*day, day)))
	require.NoFileExists(t, file)
}

// A private key in software is never written.
func TestSaveRefusesSoftwareKeys(t *testing.T) {
	s := newShelf(t)
	software, err := mtls.SoftwareKeys{}.Key(t.Context())
	require.NoError(t, err)
	for _, k := range []mtls.Key{software, softwareKey{Key: software}} {
		b, err := s.authority.binding(k, time.Now(), time.Now().Add(7*day))
		require.NoError(t, err)
		err = s.save(t.Context(), alias, b)
		require.ErrorContains(t, err, "one in software never")
		require.ErrorIs(t, err, mtls.ErrKeyNotKept)
	}
	require.NoDirExists(t, s.dir)
	b := s.binding(time.Hour, 7*day)
	b.Endpoint = "http://plain.example"
	require.ErrorContains(t, s.save(t.Context(), alias, b), "https")
	require.ErrorContains(t, s.save(t.Context(), "", s.binding(time.Hour, 7*day)), "alias")
}
