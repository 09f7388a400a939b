package sqlstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// This file keeps the store's files to their owner. On Windows, where a mode
// says nothing of who may read, modes are not checked.

const (
	fileMode fs.FileMode = 0o600
	dirMode  fs.FileMode = 0o700
)

var checksModes = runtime.GOOS != "windows"

// refusal is the error about a file of the store that an operator must put in
// order: what is wrong with which file, and what to do.
func refusal(store, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: the user that runs this program must own the file and its directory", err)
	case errors.Is(err, syscall.EROFS):
		err = fmt.Errorf("%w: mount it writable, or name a path elsewhere", err)
	}
	return fmt.Errorf("api_keys: store %s: %w", store, err)
}

// ensureDir makes the store's directory and whatever is missing above it, and
// refuses one that others can enter.
func ensureDir(store string) error {
	dir := filepath.Dir(store)
	if err := makeDir(dir); err != nil {
		return refusal(store, "make directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return refusal(store, "%w", err)
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return refusal(store, "its directory %s is a symbolic link: name the directory itself", dir)
	case !mode.IsDir():
		return refusal(store, "%s is not a directory", dir)
	case checksModes && mode.Perm()&^dirMode != 0:
		return refusal(store, "its directory %s has mode %04o and is open to others: give the store a directory of its own, or if it holds nothing else, run: chmod 700 %s",
			dir, mode.Perm(), dir)
	case checksModes && mode.Perm() != dirMode:
		return refusal(store, "its directory %s has mode %04o and can't be written: chmod 700 %s", dir, mode.Perm(), dir)
	}
	return nil
}

// makeDir is os.MkdirAll that syncs each parent, so that no directory above a
// durable file is lost in a power cut.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(parent); err != nil {
		// The next start would find it, and take its name for durable.
		return errors.Join(err, os.Remove(dir))
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // It has no such call; the file system's journal does it.
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// checkFiles refuses the store's files if check refuses any.
func checkFiles(store string, check func(store, name string) error) error {
	for _, name := range []string{store, store + "-wal", store + "-shm"} {
		if err := check(store, name); err != nil {
			return err
		}
	}
	return nil
}

// checkFile refuses one of the store's files, which may be absent, unless it is
// a plain file of mode 0600.
func checkFile(store, name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refusal(store, "%w", err)
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return refusal(store, "%s is a symbolic link: name the file itself", name)
	case mode.IsDir():
		return refusal(store, "%s is a directory: name a file in it", name)
	case !mode.IsRegular():
		return refusal(store, "%s is not a regular file", name)
	case checksModes && mode.Perm()&^fileMode != 0:
		return refusal(store, "%s has mode %04o and is open to others: chmod 600 %s", name, mode.Perm(), name)
	case checksModes && mode.Perm() != fileMode:
		return refusal(store, "%s has mode %04o and can't be written: chmod 600 %s", name, mode.Perm(), name)
	}
	return nil
}

// checkWritable opens one of the store's files, which may be absent, as the
// engine will. It needs the lock: SQLite locks its files for the process, and
// closing any descriptor of a file gives up the locks of all.
func checkWritable(store, name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refusal(store, "%w", err)
	}
	return f.Close()
}

// privateFile makes an empty file beside the store that only its owner can
// read, under a name that removeStale finds again after a crash.
func privateFile(store, purpose string) (name string, err error) {
	// os.CreateTemp makes files of mode 0600.
	f, err := os.CreateTemp(filepath.Dir(store), filepath.Base(store)+"."+purpose+"-*")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// The purposes of private files.
const (
	forCreation = "new"
	forBackup   = "backup"
	forRestore  = "restore"
)

// removeStale removes the private files that a crash left.
func removeStale(store string) error {
	dir, base := filepath.Split(store)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		for _, purpose := range []string{forCreation, forBackup, forRestore} {
			prefix := base + "." + purpose + "-"
			if strings.HasPrefix(entry.Name(), prefix) && entry.Type().IsRegular() {
				// One that can't be removed is in nobody's way.
				_ = os.Remove(filepath.Join(dir, entry.Name()))
			}
		}
	}
	return nil
}
