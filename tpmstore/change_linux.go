package tpmstore

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// What changes a folder needs its lock.

const (
	nonblocking = syscall.O_NONBLOCK // a FIFO would hold up who opens it
	temporary   = "tmp-"             // begins the name of a file that is being written
	aside       = ".bad"             // ends the name of one that was set aside
)

// write puts data into a file: all of it or, whatever fails and whenever the machine stops, none.
func (f *folder) write(name string, data []byte) error {
	unfinished := temporary + rand.Text()
	err := f.fill(unfinished, data)
	if err == nil {
		err = f.replace(unfinished, name)
	}
	if err != nil {
		_ = f.root.Remove(unfinished)
		return err
	}
	return f.sync()
}

func (f *folder) fill(name string, data []byte) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Chmod(0o600); err != nil { // the umask may have taken something away
		return err
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// replace gives a file the name of another. A folder cannot be replaced, so it makes way.
func (f *folder) replace(unfinished, name string) error {
	if info, err := f.root.Lstat(name); err == nil && info.IsDir() {
		if err := f.moveAside(name); err != nil {
			return err
		}
	}
	return f.root.Rename(unfinished, name)
}

// sync makes sure that what was renamed and removed stays so.
func (f *folder) sync() error {
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// remove deletes files, those that are there.
func (f *folder) remove(names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := f.root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, f.root.RemoveAll(name))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(append(errs, f.sync())...)
}

// setAside moves a file out of the way, if it is still the one that was looked at.
func (f *folder) setAside(name string, seen fs.FileInfo) error {
	same, err := f.unchanged(name, seen)
	if err != nil || !same {
		return err
	}
	return f.moveAside(name)
}

func (f *folder) moveAside(name string) error {
	if err := f.root.RemoveAll(name + aside); err != nil { // one of each is kept
		return err
	}
	return f.root.Rename(name, name+aside)
}

// unchanged reports whether a file is still the one that was looked at.
func (f *folder) unchanged(name string, seen fs.FileInfo) (bool, error) {
	info, err := f.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(info, seen) && info.ModTime().Equal(seen.ModTime()) && info.Size() == seen.Size(), nil
}

// maxSwept bounds how much one sweep deletes: others wait for the lock.
const maxSwept = 1000

// sweep deletes what processes left behind that died while they wrote. What cannot be deleted does no harm.
func (f *folder) sweep() {
	swept := 0
	_ = f.names(func(batch []string) (more bool) {
		for _, name := range batch {
			if strings.HasPrefix(name, temporary) {
				swept++
				_ = f.root.Remove(name)
			}
		}
		return swept < maxSwept
	})
}
