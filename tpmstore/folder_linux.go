package tpmstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// folder is our open folder. What lies in it is reached by the folder's handle only, so that nothing can be swapped
// underneath.
type folder struct {
	root *os.Root
	path string
}

// openFolder opens our folder, and makes it if need be. It refuses one that is not ours alone.
func openFolder(option string, create bool) (*folder, error) {
	path, err := place(option)
	if err != nil {
		return nil, err
	}
	if create {
		if err := makeFolder(path); err != nil {
			return nil, fmt.Errorf("tpmstore: making folder %s: %w", path, err)
		}
	}
	named, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("tpmstore: looking for folder %s: %w", path, err)
	}
	if named.Mode()&fs.ModeSymlink != 0 {
		return nil, refused(path, errors.New("it is a symbolic link"))
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("tpmstore: opening folder %s: %w", path, err)
	}
	if err := vetFolder(root, named, path); err != nil {
		_ = root.Close()
		return nil, refused(path, err)
	}
	return &folder{root, path}, nil
}

func refused(path string, reason error) error {
	return fmt.Errorf("tpmstore: folder %s is not used: %w", path, reason)
}

func makeFolder(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, 0o700) // the umask may have taken something away
}

// vetFolder returns why an open folder is not ours alone, nil if it is. OpenRoot follows a symbolic link: what it
// opened must be what was looked at before.
func vetFolder(root *os.Root, named fs.FileInfo, path string) error {
	opened, err := root.Stat(".")
	switch {
	case err != nil:
		return err
	case !os.SameFile(named, opened):
		return errors.New("it was exchanged while it was opened")
	}
	if err := vetOwn(opened); err != nil {
		return err
	}
	return vetAbove(path)
}

// vetOwn returns why a folder or file is not ours alone, nil if it is.
func vetOwn(info fs.FileInfo) error {
	if owner := ownerOf(info); owner != os.Geteuid() {
		return fmt.Errorf("another user owns it (uid %d, and this process has uid %d)", owner, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("others may use it (mode %04o): look who did, then chmod go-rwx", mode)
	}
	return nil
}

func (f *folder) close() { _ = f.root.Close() }

// maxListed bounds how many files of a folder are looked at.
const maxListed = 20_000

// names visits the names in the folder, a batch at a time, while more are wanted and no more than maxListed.
func (f *folder) names(visit func(batch []string) (more bool)) error {
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	for listed := 0; listed < maxListed; {
		batch, err := dir.Readdirnames(1000)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if listed += len(batch); !visit(batch) {
			return nil
		}
	}
	return nil
}

// maxFile is more than what a file of ours has.
const maxFile = 64 << 10

// unfitError is why a file is not read. info is the file as it was looked at.
type unfitError struct {
	info   fs.FileInfo
	reason error
}

func (e *unfitError) Error() string { return e.reason.Error() }
func (e *unfitError) Unwrap() error { return e.reason }

// read returns what a file holds, and the file that was read. The error is fs.ErrNotExist, or an *unfitError for a file
// that is not ours alone, or too large.
func (f *folder) read(name string) ([]byte, fs.FileInfo, error) {
	named, err := f.root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	unfit := func(reason error) ([]byte, fs.FileInfo, error) {
		return nil, nil, &unfitError{named, reason}
	}
	switch {
	case named.Mode()&fs.ModeSymlink != 0: // O_NOFOLLOW has no effect in an os.Root
		return unfit(errors.New("it is a symbolic link"))
	case !named.Mode().IsRegular():
		return unfit(fmt.Errorf("it is no file (%s)", named.Mode().Type()))
	}
	if err := vetOwn(named); err != nil {
		return unfit(err)
	}
	if named.Size() > maxFile {
		return unfit(fmt.Errorf("it has %d bytes, more than any file of ours", named.Size()))
	}
	file, err := f.root.OpenFile(name, os.O_RDONLY|nonblocking, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	opened, err := file.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !os.SameFile(named, opened): // replaced since: by another process that saved, most likely
		return nil, nil, errExchanged
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	return data, opened, err
}

var errExchanged = errors.New("it was exchanged while it was read")
