package tpmstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const folderName = "azmtls"

// place returns where our folder is.
func place(option string) (string, error) {
	base, err := basePlace(option)
	if err != nil {
		return "", err
	}
	return filepath.Join(base, folderName), nil
}

func basePlace(option string) (string, error) {
	if option != "" {
		return filepath.Abs(option)
	}
	// systemd separates several by colons:
	// https://www.freedesktop.org/software/systemd/man/systemd.exec.html#StateDirectory=
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	// One that is not absolute is ignored: https://specifications.freedesktop.org/basedir-spec/latest/
	for _, dir := range []string{first, os.Getenv("XDG_STATE_HOME")} {
		if filepath.IsAbs(dir) {
			return filepath.Clean(dir), nil
		}
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state"), nil
	}
	return "", errNoPlace
}

var errNoPlace = errors.New("tpmstore: there is no place for a folder: set Folder, $STATE_DIRECTORY " +
	"(StateDirectory= in a systemd unit), $XDG_STATE_HOME or $HOME")

// vetAbove returns why the way to our folder cannot be trusted: a symbolic link on it is another user's, and not
// root's.
func vetAbove(path string) error {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if owner := ownerOf(info); info.Mode()&fs.ModeSymlink != 0 && owner != 0 && owner != os.Geteuid() {
			return fmt.Errorf("%s is a symbolic link of another user (uid %d)", dir, owner)
		}
	}
	return nil
}

func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}
