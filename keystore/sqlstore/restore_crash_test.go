package sqlstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// crashSite is a directory with a store in which the setting "which" is "old", and a
// staged file in which it is "new".
type crashSite struct {
	t            *testing.T
	path, staged string
	// left are copies of the directory, by the step after which they were made.
	left map[string]string
}

func newCrashSite(t *testing.T) *crashSite {
	t.Helper()
	c := &crashSite{t: t, path: filepath.Join(t.TempDir(), "keys", "keys.db"), left: map[string]string{}}
	c.staged = c.path + "." + forRestore + "-1"
	c.make(c.path, "old") // first: opening it removes what a crash left
	c.make(c.staged, "new")
	return c
}

func (c *crashSite) make(path, which string) {
	c.t.Helper()
	store, err := OpenSQLite(c.t.Context(), path)
	if err != nil {
		c.t.Fatal(err)
	}
	err = store.Update(c.t.Context(), func(tx keystore.Tx) error { return tx.SetSetting("which", []byte(which)) })
	if err := errors.Join(err, store.Close(), os.Remove(path+".lock")); err != nil {
		c.t.Fatal(err)
	}
}

// reached copies what a crash would leave now.
func (c *crashSite) reached(step string) {
	c.t.Helper()
	to := filepath.Join(c.t.TempDir(), "keys")
	c.left[step] = filepath.Join(to, "keys.db")
	if err := os.CopyFS(to, os.DirFS(filepath.Dir(c.path))); err != nil {
		c.t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(name, dirMode)
		}
		return os.Chmod(name, fileMode)
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// which is the store that is there after a crash: "old", "new", or why it is none.
func (c *crashSite) which(step string) (which string) {
	store, err := OpenSQLite(c.t.Context(), c.left[step])
	if err != nil {
		return err.Error()
	}
	defer store.Close()
	err = store.View(c.t.Context(), func(r keystore.Reader) error {
		value, err := r.Setting("which")
		which = string(value)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return which
}

func TestACrashInARestoreLeavesTheOldOrTheNewStore(t *testing.T) {
	t.Parallel()
	c := newCrashSite(t)
	c.reached("start")
	s := &swap{path: c.path, staged: c.staged, at: time.Now(), reached: c.reached}
	if _, err := s.run(); err != nil {
		t.Fatal(err)
	}
	c.reached("end")
	want := map[string]string{"start": "old", "synced": "old", "kept": "old", "log removed": "old", "renamed": "new", "end": "new"}
	if len(c.left) != len(want) {
		t.Errorf("%d steps, want %d", len(c.left), len(want))
	}
	for step, which := range want {
		if got := c.which(step); got != which {
			t.Errorf("after a crash at %q there is %q, want %q", step, got, which)
		}
	}
}

// TestTheOldLogNeverMeetsTheNewStore: a log that is there belongs to a store that
// could not be read, and SQLite would play it into whatever stands beside it.
func TestTheOldLogNeverMeetsTheNewStore(t *testing.T) {
	t.Parallel()
	c := newCrashSite(t)
	if err := os.WriteFile(c.path+"-wal", []byte("a log that nobody could read"), fileMode); err != nil {
		t.Fatal(err)
	}
	s := &swap{path: c.path, staged: c.staged, at: time.Now(), reached: func(step string) {
		if _, err := os.Stat(c.path + "-wal"); err == nil && step == "renamed" {
			t.Error("the log is beside the new store")
		}
	}}
	aside, err := s.run()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside + "-wal"); err != nil {
		t.Errorf("the log is not kept: %v", err)
	}
}

// The control of the crash test: who makes room first, and then puts the backup
// there, leaves nothing in between.
func TestTheCrashTestNoticesAGap(t *testing.T) {
	t.Parallel()
	c := newCrashSite(t)
	if err := os.Rename(c.path, c.path+".aside"); err != nil {
		t.Fatal(err)
	}
	c.reached("moved away")
	if got := c.which("moved away"); got == "old" || got == "new" {
		t.Errorf("there is %q", got)
	}
}
