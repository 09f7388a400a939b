package sqlstore_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// make makes a store that is closed, and returns its path.
func makeStore(t testing.TB) string {
	t.Helper()
	path := newPath(t)
	store := open(t, path)
	createFamily(t, store, "a")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func createFamily(t testing.TB, store keystore.Store, id string) {
	t.Helper()
	err := store.Update(t.Context(), func(tx keystore.Tx) error {
		if err := tx.CreateAccount(&keystore.Account{ID: id, Active: true}); err != nil {
			return err
		}
		if err := tx.CreateCredential(&keystore.Credential{ID: id + "/c", AccountID: id, Active: true}); err != nil {
			return err
		}
		return tx.CreateKey(&keystore.Key{ID: id + "/k", CredentialID: id + "/c", Digest: digestOf(id)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func digestOf(id string) (d keystore.Digest) {
	copy(d[:], id)
	return d
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	skipModes(t)
	lax(t)
	path := filepath.Join(t.TempDir(), "made", "on the way", "keys?#%41.db")
	store := open(t, path)
	defer store.Close()
	createFamily(t, store, "a")
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if mode := modeOf(t, dir); mode != 0o700 {
			t.Errorf("directory %s has mode %04o", dir, mode)
		}
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		if mode := modeOf(t, path+suffix); mode != 0o600 {
			t.Errorf("%s has mode %04o", path+suffix, mode)
		}
	}
	if names := namesIn(t, filepath.Dir(path)); len(names) != 4 {
		t.Errorf("other files: %q", names)
	}
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func skipModes(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing on Windows")
	}
}

func TestWhatIsNotTheOwnersOnlyIsRefused(t *testing.T) {
	skipModes(t)
	dir := filepath.Dir
	tests := []struct {
		name string
		// disorder returns the path to open, given that of a store.
		disorder func(t *testing.T, path string) string
		// says are parts of the error; %s is the path.
		says []string
	}{
		{"file that others can read", func(t *testing.T, path string) string {
			chmod(t, path, 0o644)
			return path
		}, []string{"0644", "open to others", "chmod 600 %s"}},
		{"file that the group can write", func(t *testing.T, path string) string {
			chmod(t, path, 0o620)
			return path
		}, []string{"0620", "chmod 600 %s"}},
		{"file that can't be written", func(t *testing.T, path string) string {
			chmod(t, path, 0o400)
			return path
		}, []string{"0400", "can't be written", "chmod 600 %s"}},
		{"log that others can read", func(t *testing.T, path string) string {
			write(t, path+"-wal", nil, 0o644)
			return path
		}, []string{"chmod 600 %s-wal"}},
		{"lock that others can write", func(t *testing.T, path string) string {
			chmod(t, path+".lock", 0o666)
			return path
		}, []string{"chmod 600 %s.lock"}},
		{"directory that others can enter", func(t *testing.T, path string) string {
			chmod(t, dir(path), 0o755)
			return path
		}, []string{"0755", "directory of its own", "chmod 700"}},
		{"directory that can't be written", func(t *testing.T, path string) string {
			chmod(t, dir(path), 0o500)
			t.Cleanup(func() { chmod(t, dir(path), 0o700) })
			return path
		}, []string{"0500", "chmod 700"}},
		{"symbolic link to the file", func(t *testing.T, path string) string {
			link := path + ".link"
			symlink(t, path, link)
			return link
		}, []string{"%s.link is a symbolic link"}},
		{"symbolic link to the directory", func(t *testing.T, path string) string {
			link := filepath.Join(filepath.Dir(dir(path)), "link")
			symlink(t, dir(path), link)
			return filepath.Join(link, "keys.db")
		}, []string{"link is a symbolic link"}},
		{"dangling symbolic link", func(t *testing.T, path string) string {
			link := path + ".link"
			symlink(t, path+".none", link)
			return link
		}, []string{"is a symbolic link"}},
		{"directory in place of the file", func(t *testing.T, path string) string { return dir(path) }, nil},
		{"file in place of the directory", func(t *testing.T, path string) string {
			return filepath.Join(path, "keys.db")
		}, []string{"directory"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := makeStore(t)
			before := contents(t, path)
			store, err := sqlstore.OpenSQLite(t.Context(), test.disorder(t, path))
			if err == nil {
				_ = store.Close()
				t.Fatal("it was opened")
			}
			for _, part := range test.says {
				if part = strings.ReplaceAll(part, "%s", path); !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if after := contents(t, path); after != before {
				t.Error("the file was changed")
			}
		})
	}
}

// contents reads a file past its mode.
func contents(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	chmod(t, path, mode)
}

func symlink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreOpensUnderOtherNamesOfItsPath(t *testing.T) {
	path := makeStore(t)
	t.Chdir(filepath.Dir(path))
	store := open(t, "./x/../keys.db")
	defer store.Close()
	if _, err := store.Lookup(t.Context(), digestOf("a")); err != nil {
		t.Error(err)
	}
}

func TestWhatACrashLeftIsRemoved(t *testing.T) {
	path := makeStore(t)
	for _, suffix := range []string{".new-123", ".new-123-wal", ".backup-4", ".backup-4-journal"} {
		write(t, path+suffix, []byte("stale"), 0o600)
	}
	// Files of the operator.
	for _, suffix := range []string{".backup", ".old"} {
		write(t, path+suffix, []byte("kept"), 0o600)
	}
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(namesIn(t, filepath.Dir(path)), " "); got != "keys.db keys.db.backup keys.db.lock keys.db.old" {
		t.Errorf("files: %s", got)
	}
}
