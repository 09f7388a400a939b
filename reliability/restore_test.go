//go:build reliability

package reliability

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// This file kills restores in the middle.

const (
	restoreChild  = "restore"
	restoreNaive  = "restore in place"
	restoreStore  = "RELIABILITY_RESTORE_STORE"
	restoreBackup = "RELIABILITY_RESTORE_BACKUP"
)

func init() {
	children[restoreChild] = func() {
		os.Stdout.WriteString("begun\n")
		_, err := sqlstore.RestoreSQLite(context.Background(), os.Getenv(restoreStore), os.Getenv(restoreBackup), true)
		if err != nil {
			panic(err)
		}
	}
	// The other one copies the backup over the store, as a hand would.
	children[restoreNaive] = func() {
		os.Stdout.WriteString("begun\n")
		content, err := os.ReadFile(os.Getenv(restoreBackup))
		if err != nil {
			panic(err)
		}
		store, err := os.OpenFile(os.Getenv(restoreStore), os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			panic(err)
		}
		for len(content) > 0 {
			n, err := store.Write(content[:min(len(content), 1<<16)])
			if err != nil {
				panic(err)
			}
			content = content[n:]
			time.Sleep(time.Millisecond) // a disk that has more to do
		}
	}
}

// restoreSite has a backup in which the account "backup" is, and makes stores in
// which "old" is, too.
type restoreSite struct {
	backup string
	old    []byte
}

func newRestoreSite(t *testing.T) *restoreSite {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys", "keys.db")
	kr, vault, err := openKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	create := func(id string) {
		if _, err := kr.CreateAccount(t.Context(), keystore.Account{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	create("backup")
	for batch := range 30 { // so that there is something to copy
		records, err := importRecords(kr, batch)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := kr.Import(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	s := &restoreSite{backup: filepath.Join(t.TempDir(), "backup.db")}
	f, err := os.Create(s.backup)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(vault.Backup(t.Context(), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	create("old")
	if err := vault.Close(); err != nil {
		t.Fatal(err)
	}
	if s.old, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return s
}

// killed restores over a store of its own, and kills that after a while. It says
// what is there then: "old", "new", or what is wrong with it.
func (s *restoreSite) killed(t *testing.T, child string, after time.Duration) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys", "keys.db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, s.old, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+child, restoreStore+"="+path, restoreBackup+"="+s.backup)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(out, make([]byte, len("begun\n")))
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return s.which(t, path)
}

func (s *restoreSite) which(t *testing.T, path string) string {
	t.Helper()
	kr, vault, err := openKeyring(path)
	if err != nil {
		return err.Error()
	}
	defer vault.Close()
	found := map[string]bool{}
	err = kr.View(t.Context(), func(r keystore.Reader) error {
		for _, id := range []string{"old", "backup"} {
			_, err := r.Account(id)
			if found[id] = err == nil; err != nil && !errors.Is(err, keystore.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err.Error()
	}
	for i := range 30 * importBatchSize / 3 {
		if _, v, err := kr.Verify(t.Context(), importText(i)); v != keystore.OK {
			return "a key is " + v.String() + errorText(err)
		}
	}
	switch {
	case found["old"] && found["backup"]:
		return "old"
	case found["backup"]:
		return "new"
	}
	return "another store"
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func TestAKilledRestoreLeavesTheOldOrTheNewStore(t *testing.T) {
	s := newRestoreSite(t)
	// How long one takes, the process's start aside.
	begin := time.Now()
	if _, err := sqlstore.RestoreSQLite(t.Context(), filepath.Join(t.TempDir(), "keys", "keys.db"), s.backup, true); err != nil {
		t.Fatal(err)
	}
	takes := time.Since(begin)
	seen := map[string]int{}
	for range size(12, 300) {
		seen[s.killed(t, restoreChild, rand.N(3*takes))]++
	}
	t.Logf("a restore takes %v; left were %v", takes, seen)
	if delete(seen, "old"); seen["new"] == 0 {
		t.Log("none was killed late")
	}
	delete(seen, "new")
	for what, n := range seen {
		t.Errorf("%d times: %s", n, what)
	}
}

// The control: a backup that is copied over the store leaves neither.
func TestAKilledCopyIsFoundOut(t *testing.T) {
	s := newRestoreSite(t)
	for range 10 {
		if which := s.killed(t, restoreNaive, 3*time.Millisecond); which != "old" && which != "new" {
			return
		}
	}
	t.Error("a copy that was killed left a whole store each time")
}
