package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// shop is an open store with its keyring.
type shop struct {
	*keystore.Keyring
	t     testing.TB
	vault *keystore.Vault
	path  string
}

func openShop(t testing.TB, path string) *shop {
	t.Helper()
	vault, err := keystore.OpenVault(t.Context(), open(t, path), keystore.MinCacheSize, func(problem string, err error) {
		t.Errorf("%s: %v", problem, err)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vault.Close() })
	kr, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return &shop{kr, t, vault, path}
}

func (s *shop) close() {
	s.t.Helper()
	if err := s.vault.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// issue makes a key, of an account of its own.
func (s *shop) issue() *keystore.Issued {
	s.t.Helper()
	a, err := s.CreateAccount(s.t.Context(), keystore.Account{})
	if err != nil {
		s.t.Fatal(err)
	}
	issued, err := s.Issue(s.t.Context(), keystore.Operator(), keystore.Credential{AccountID: a.ID})
	if err != nil {
		s.t.Fatal(err)
	}
	return issued
}

func (s *shop) verdict(text string) keystore.Verdict {
	s.t.Helper()
	_, v, err := s.Verify(s.t.Context(), text)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *shop) revoke(id string) {
	s.t.Helper()
	if _, err := s.RevokeKey(s.t.Context(), id, "leaked"); err != nil {
		s.t.Fatal(err)
	}
}

// backUp writes a backup to a new file.
func (s *shop) backUp() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "backup.db")
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(s.vault.Backup(s.t.Context(), f), f.Close()); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func restore(t testing.TB, path, backup string, force bool) (sqlstore.Restored, error) {
	t.Helper()
	return sqlstore.RestoreSQLite(t.Context(), path, backup, force)
}

// files are what is in the directory of a store, but for its lock.
func files(t testing.TB, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lock") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestABackupIsRestoredWhereThereIsNoStore(t *testing.T) {
	t.Parallel()
	s := openShop(t, newPath(t))
	issued := s.issue()
	backup := s.backUp()
	before := read(t, backup)
	path := filepath.Join(t.TempDir(), "made", "keys.db")
	done, err := restore(t, path, backup, false)
	if err != nil || done.Any() || done.Aside != "" {
		t.Fatalf("%+v, %v", done, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got := files(t, path); len(got) != 1 {
		t.Errorf("it leaves %v", got)
	}
	if !bytes.Equal(read(t, backup), before) || len(files(t, backup)) != 1 {
		t.Error("the backup was touched")
	}
	if v := openShop(t, path).verdict(issued.Text); v != keystore.OK {
		t.Errorf("the key is %v", v)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestANewerStoreIsNotReplaced is the control of the test before, too: what is
// found there is not always nothing.
func TestANewerStoreIsNotReplaced(t *testing.T) {
	t.Parallel()
	changes := map[string]struct {
		change func(*shop, *keystore.Issued)
		found  func(sqlstore.Losses) bool
	}{
		"a revocation": {func(s *shop, k *keystore.Issued) { s.revoke(k.Key.ID) },
			func(l sqlstore.Losses) bool {
				return l.RevivedCount == 1 && len(l.Revived) == 1 && l.Revived[0].RevokedReason == "leaked" && l.Revived[0].RevokedAt != 0 && l.Changed == 1
			}},
		"a rotation": {func(s *shop, k *keystore.Issued) {
			if _, err := s.Rotate(s.t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: k.Credential.ID}); err != nil {
				s.t.Fatal(err)
			}
		}, func(l sqlstore.Losses) bool { return l.RevivedCount == 1 && l.Keys == 1 }},
		"a rotation that lets it go on": {func(s *shop, k *keystore.Issued) {
			if _, err := s.Rotate(s.t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: k.Credential.ID, Overlap: keystore.Overlap{For: time.Hour}}); err != nil {
				s.t.Fatal(err)
			}
		}, func(l sqlstore.Losses) bool { return l.RevivedCount == 0 && l.Keys == 1 && l.Changed == 1 }},
		"a deletion": {func(s *shop, k *keystore.Issued) {
			if err := s.DeleteAccount(s.t.Context(), k.Credential.AccountID); err != nil {
				s.t.Fatal(err)
			}
		}, func(l sqlstore.Losses) bool { return l.RevivedCount == 1 }},
		"a deactivation": {func(s *shop, k *keystore.Issued) {
			time.Sleep(2 * time.Millisecond) // updated_at is in milliseconds
			if _, err := s.UpdateAccount(s.t.Context(), k.Credential.AccountID, func(a *keystore.Account) error { a.Active = false; return nil }); err != nil {
				s.t.Fatal(err)
			}
		}, func(l sqlstore.Losses) bool {
			return l.RevivedCount == 1 && l.Revived[0].RevokedAt == 0 && l.Changed == 1
		}},
		"a new key": {func(s *shop, _ *keystore.Issued) { s.issue() },
			func(l sqlstore.Losses) bool {
				return l.RevivedCount == 0 && l.Accounts == 1 && l.Credentials == 1 && l.Keys == 1
			}},
		"nothing but time": {func(*shop, *keystore.Issued) {},
			func(l sqlstore.Losses) bool { return l.RevivedCount+l.Keys+l.Changed == 0 && l.Seen > l.BackupSeen }},
	}
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, newPath(t))
			issued := s.issue()
			backup := s.backUp()
			c.change(s, issued)
			before := s.verdict(issued.Text)
			s.close()
			there := read(t, s.path)

			found, err := restore(t, s.path, backup, false)
			if !errors.Is(err, sqlstore.ErrNewer) || !c.found(found.Losses) {
				t.Errorf("%+v, %v", found, err)
			}
			if got := files(t, s.path); len(got) != 1 || !bytes.Equal(read(t, s.path), there) {
				t.Errorf("it was touched: %v", got)
			}
			forced, err := restore(t, s.path, backup, true)
			if err != nil || forced.Aside == "" || !c.found(forced.Losses) {
				t.Fatalf("%+v, %v", forced, err)
			}
			if !bytes.Equal(read(t, forced.Aside), there) {
				t.Error("the store that was there is not what is kept")
			}
			if v := openShop(t, s.path).verdict(issued.Text); v != keystore.OK {
				t.Errorf("the key is %v after the restore", v)
			}
			kept := newPath(t)
			if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(forced.Aside, kept); err != nil {
				t.Fatal(err)
			}
			if v := openShop(t, kept).verdict(issued.Text); v != before {
				t.Errorf("the key is %v in the store that is kept, and was %v", v, before)
			}
		})
	}
}

func TestAnOlderStoreIsReplaced(t *testing.T) {
	t.Parallel()
	s := openShop(t, newPath(t))
	issued := s.issue()
	s.close()
	old := newPath(t)
	if err := os.Mkdir(filepath.Dir(old), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, read(t, s.path), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openShop(t, s.path)
	s.revoke(issued.Key.ID)
	s.close() // which stores the time
	done, err := restore(t, old, s.path, false)
	if err != nil || done.Any() || done.Aside == "" {
		t.Fatalf("%+v, %v", done, err)
	}
	if v := openShop(t, old).verdict(issued.Text); v != keystore.RevokedKey {
		t.Errorf("the key is %v", v)
	}
}

// TestTimeDoesNotGoBackByARestore: a key that has expired stays so, even if the
// system's clock is set back, too.
func TestTimeDoesNotGoBackByARestore(t *testing.T) {
	t.Parallel()
	s := openShop(t, newPath(t))
	backup := s.backUp()
	s.close()
	seen := clockOf(t, s.path)
	if _, err := restore(t, s.path, backup, true); err != nil {
		t.Fatal(err)
	}
	if got := clockOf(t, s.path); !bytes.Equal(got, seen) || len(clockOf(t, backup)) != 0 {
		t.Errorf("the time is %x, and was %x", got, seen)
	}
}

func clockOf(t testing.TB, path string) (value []byte) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.QueryRow("SELECT value FROM settings WHERE name = 'clock'").Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	return value
}

func TestAStoreInUseIsNotReplaced(t *testing.T) {
	t.Parallel()
	s := openShop(t, newPath(t))
	issued := s.issue()
	backup := s.backUp()
	for _, force := range []bool{false, true} {
		if _, err := restore(t, s.path, backup, force); !errors.Is(err, sqlstore.ErrLocked) {
			t.Errorf("force %t: %v", force, err)
		}
	}
	if v := s.verdict(issued.Text); v != keystore.OK {
		t.Errorf("the key is %v", v)
	}
}

func TestWhatIsNoWholeBackupIsRefused(t *testing.T) {
	t.Parallel()
	s := openShop(t, newPath(t))
	for range 200 {
		s.issue()
	}
	whole := read(t, s.backUp())
	s.close()
	edit := func(change func([]byte) []byte) []byte { return change(bytes.Clone(whole)) }
	for name, content := range map[string][]byte{
		"an empty file":             {},
		"a text":                    []byte("id,key\n1,abc\n"),
		"a truncated file":          edit(func(b []byte) []byte { return b[:len(b)-4096] }),
		"a part of the header":      edit(func(b []byte) []byte { return b[:50] }),
		"another program's file":    edit(func(b []byte) []byte { b[71]++; return b }),
		"a newer schema":            edit(func(b []byte) []byte { b[63] = 200; return b }),
		"a page of zeros":           edit(func(b []byte) []byte { clear(b[len(b)/2/4096*4096:][:4096]); return b }),
		"a bit that has flipped":    edit(func(b []byte) []byte { b[len(b)/2/4096*4096] ^= 0x40; return b }),
		"a revoked key's old grant": edit(func(b []byte) []byte { return changed(t, b, "UPDATE keys SET revoked_at = 1") }),
		"a grant less": edit(func(b []byte) []byte {
			return changed(t, b, "DELETE FROM grants WHERE key_id = (SELECT max(id) FROM keys)")
		}),
		"a grant of no key":       edit(func(b []byte) []byte { return changed(t, b, "DELETE FROM keys WHERE id = (SELECT max(id) FROM keys)") }),
		"a page of another place": edit(func(b []byte) []byte { copy(b[len(b)/2/4096*4096:][:4096], b[4096*3:]); return b }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backup := filepath.Join(t.TempDir(), "backup.db")
			if err := os.WriteFile(backup, content, 0o600); err != nil {
				t.Fatal(err)
			}
			path := newPath(t)
			if _, err := restore(t, path, backup, true); !errors.Is(err, keystore.ErrDamaged) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("a store was made")
			}
		})
	}
	// The control: the same bytes, unchanged.
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err := os.WriteFile(backup, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(t, newPath(t), backup, false); err != nil {
		t.Errorf("the whole backup: %v", err)
	}
}

// changed is a store's file after a change by hand.
func changed(t *testing.T, file []byte, change string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "changed.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil { // which moves the log into the file
		t.Fatal(err)
	}
	return read(t, path)
}

func TestOnlyForceReplacesAStoreThatCantBeRead(t *testing.T) {
	t.Parallel()
	for name, break_ := range map[string]func(t *testing.T, path string){
		"a truncated file": func(t *testing.T, path string) {
			if err := os.Truncate(path, 4096); err != nil {
				t.Fatal(err)
			}
		},
		"a log without its file": func(t *testing.T, path string) {
			if err := os.Rename(path, path+"-wal"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, newPath(t))
			issued := s.issue()
			backup := s.backUp()
			s.close()
			break_(t, s.path)
			if found, err := restore(t, s.path, backup, false); !errors.Is(err, sqlstore.ErrNewer) || found.Unreadable == nil {
				t.Fatalf("%+v, %v", found, err)
			}
			done, err := restore(t, s.path, backup, true)
			if err != nil || done.Aside == "" {
				t.Fatalf("%+v, %v", done, err)
			}
			if v := openShop(t, s.path).verdict(issued.Text); v != keystore.OK {
				t.Errorf("the key is %v", v)
			}
		})
	}
}

func TestARestoreThatIsGivenUpLeavesNothing(t *testing.T) {
	t.Parallel()
	s := openShop(t, newPath(t))
	backup := s.backUp()
	s.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqlstore.RestoreSQLite(ctx, s.path, backup, true); err == nil {
		t.Error("it goes on")
	}
	if got := files(t, s.path); len(got) != 1 {
		t.Errorf("it leaves %v", got)
	}
}
