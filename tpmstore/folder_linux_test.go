package tpmstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/azmtls/azmtls/mtls"
	"github.com/stretchr/testify/require"
)

func TestPlace(t *testing.T) {
	for name, test := range map[string]struct{ option, state, xdg, home, want string }{
		"option":                    {"/srv/app", "/var/lib/a", "/x", "/home/u", "/srv/app/azmtls"},
		"systemd":                   {"", "/var/lib/a", "/x", "/home/u", "/var/lib/a/azmtls"},
		"the first of several":      {"", "/var/lib/a:/var/lib/b", "/x", "/home/u", "/var/lib/a/azmtls"},
		"XDG":                       {"", "", "/x", "/home/u", "/x/azmtls"},
		"XDG that is not absolute":  {"", "", "x", "/home/u", "/home/u/.local/state/azmtls"},
		"home":                      {"", "", "", "/home/u", "/home/u/.local/state/azmtls"},
		"nothing":                   {"", "", "", "", ""},
		"home that is not absolute": {"", "", "", "~", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("STATE_DIRECTORY", test.state)
			t.Setenv("XDG_STATE_HOME", test.xdg)
			t.Setenv("HOME", test.home)
			got, err := place(test.option)
			if test.want == "" {
				require.ErrorIs(t, err, errNoPlace)
				_, err := Store{}.Load(t.Context(), alias)
				require.ErrorIs(t, err, mtls.ErrNotFound)
				require.NoError(t, Store{}.DeleteAll(t.Context(), alias), "there is nothing to delete")
				s := newShelf(t)
				require.ErrorIs(t, Store{}.Save(t.Context(), alias, s.binding(0, 7*day)), errNoPlace)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

// A folder that is not ours alone is not used, whatever lies in it, and nothing in it is touched.
func TestFolderIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, s *shelf)
		want  string
	}{
		"readable by all": {func(t *testing.T, s *shelf) { require.NoError(t, os.Chmod(s.dir, 0o755)) }, "others may use it (mode 0755)"},
		"by the group":    {func(t *testing.T, s *shelf) { require.NoError(t, os.Chmod(s.dir, 0o710)) }, "others may use it"},
		"a symbolic link": {func(t *testing.T, s *shelf) {
			require.NoError(t, os.Rename(s.dir, s.dir+".moved"))
			require.NoError(t, os.Symlink(s.dir+".moved", s.dir))
		}, "it is a symbolic link"},
		"a dangling link": {func(t *testing.T, s *shelf) {
			require.NoError(t, os.Rename(s.dir, s.dir+".moved"))
			require.NoError(t, os.Symlink("nowhere", s.dir))
		}, "it is a symbolic link"},
		"another user's": {func(t *testing.T, s *shelf) { giveAway(t, s.dir) }, "another user owns it (uid 65534"},
		"behind another user's link": {func(t *testing.T, s *shelf) {
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(s.folder, link))
			giveAway(t, link)
			s.folder = link
		}, "is a symbolic link of another user (uid 65534)"},
		"a file": {func(t *testing.T, s *shelf) {
			require.NoError(t, os.Rename(s.dir, s.dir+".moved"))
			require.NoError(t, os.WriteFile(s.dir, nil, 0o600))
		}, "not a directory"},
		"below a file": {func(t *testing.T, s *shelf) {
			s.folder = filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(s.folder, nil, 0o600))
		}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			_, file := s.saved()
			test.spoil(t, s)
			_, loadErr := s.load(t.Context(), alias)
			saveErr := s.save(t.Context(), alias, s.binding(time.Minute, 7*day))
			for _, err := range []error{loadErr, saveErr, s.deleteAll(t.Context(), alias)} {
				require.ErrorContains(t, err, test.want)
			}
			inode, err := os.Stat(file)
			if err != nil {
				inode, err = os.Stat(filepath.Join(s.dir+".moved", filepath.Base(file)))
			}
			require.NoError(t, err)
			require.NotZero(t, inode.Size())
		})
	}
}

func giveAway(t *testing.T, path string) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	require.NoError(t, os.Lchown(path, 65534, 65534))
}

// Symbolic links of ours, and of root, may lie on the way: systemd makes some.
func TestLinksAboveAreFollowed(t *testing.T) {
	s := newShelf(t)
	thumbprint, _ := s.saved()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(s.folder, link))
	s.folder = link
	require.Equal(t, thumbprint, s.loaded())
}

// What is swapped underneath an open folder gets nothing.
func TestFolderIsSwappedUnderneath(t *testing.T) {
	s := newShelf(t)
	s.saved()
	f, err := openFolder(s.folder, false)
	require.NoError(t, err)
	defer f.close()
	require.NoError(t, os.Rename(s.dir, s.dir+".moved"))
	trap := t.TempDir()
	require.NoError(t, os.Symlink(trap, s.dir))
	require.NoError(t, f.write("file", []byte("secret")))
	require.NoFileExists(t, filepath.Join(trap, "file"))
	require.FileExists(t, filepath.Join(s.dir+".moved", "file"))
	require.Error(t, f.write("../escape", nil))
}

// A disk that is full, or cannot be written, costs the save and nothing else: the old binding is there, whole.
func TestDiskIsFull(t *testing.T) {
	if os.Getenv(roleVariable) == "" && os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	base := t.TempDir()
	if err := syscall.Mount("tmpfs", base, "tmpfs", 0, "size=16k,mode=0700"); err != nil {
		t.Skip("no file systems are mounted here:", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(base, syscall.MNT_DETACH)) })
	s := newShelf(t)
	s.folder, s.dir = base, filepath.Join(base, folderName)
	thumbprint, _ := s.saved()
	for i := 0; ; i++ { // fill it
		if err := os.WriteFile(filepath.Join(base, strconv.Itoa(i)), make([]byte, 4096), 0o600); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			break
		}
	}
	err := s.save(t.Context(), alias, s.binding(time.Minute, 7*day))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, thumbprint, s.loaded())
	require.Empty(t, temporaries(t, s.dir))

	require.NoError(t, syscall.Mount("", base, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	err = s.save(t.Context(), alias, s.binding(time.Minute, 7*day))
	require.ErrorIs(t, err, syscall.EROFS)
	require.ErrorIs(t, s.deleteAll(t.Context(), alias), syscall.EROFS)
	require.Equal(t, thumbprint, s.loaded(), "reading goes on")
}

// A limit of the process on the size of files is like a full disk, and needs no root to be tried.
func TestFilesAreLimited(t *testing.T) {
	s := newShelf(t)
	thumbprint, _ := s.saved()
	output := start(t, "limited", s.folder).wait()
	require.Contains(t, output, "file too large")
	require.Equal(t, thumbprint, s.loaded())
	require.Empty(t, temporaries(t, s.dir))
}

// limited tries to save where files may have 100 bytes.
func limited(arguments []string) error {
	limit := syscall.Rlimit{Cur: 100, Max: 100}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	a, err := newSaver(arguments[0])
	if err != nil {
		return err
	}
	err = a.save(time.Now())
	if err == nil {
		return errors.New("it was saved")
	}
	_, err = os.Stdout.WriteString(err.Error() + "\n")
	return err
}

func temporaries(t *testing.T, dir string) []string {
	found, err := filepath.Glob(filepath.Join(dir, temporary+"*"))
	require.NoError(t, err)
	return found
}

// A change waits for its turn 300 ms, or as long as its caller does. Reading takes no turn.
func TestLockIsBusy(t *testing.T) {
	s := newShelf(t)
	thumbprint, _ := s.saved()
	f, err := openFolder(s.folder, false)
	require.NoError(t, err)
	defer f.close()
	require.NoError(t, f.locked(t.Context(), lockWait, func() error {
		begin := time.Now()
		require.ErrorIs(t, s.save(t.Context(), alias, s.binding(time.Minute, 7*day)), errBusy)
		require.GreaterOrEqual(t, time.Since(begin), lockWait)
		require.ErrorIs(t, s.deleteAll(t.Context(), alias), errBusy)
		require.Equal(t, thumbprint, s.loaded())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, s.deleteAll(ctx, alias), context.DeadlineExceeded)
		return nil
	}))
	require.NoError(t, s.deleteAll(t.Context(), alias), "the lock is free again")

	dir, err := os.Open(s.dir)
	require.NoError(t, err)
	inherited, err := syscall.Dup(int(dir.Fd())) // by a child that is just being started
	require.NoError(t, err)
	defer syscall.Close(inherited)
	require.NoError(t, withLock(t.Context(), dir, lockWait, func() error { return nil }))
	require.NoError(t, s.deleteAll(t.Context(), alias), "no child keeps it")
}
