package sqlstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// running makes a store that stays open until the end of the test.
func running(t *testing.T) (path string) {
	t.Helper()
	path = newPath(t)
	store := open(t, path)
	t.Cleanup(func() { _ = store.Close() })
	createFamily(t, store, "a")
	return path
}

// copyTo copies what a crash would leave of the store at from.
func copyTo(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(from + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnUpdateThatReturnedSurvivesACrash(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	store := open(t, path)
	defer store.Close()
	for i := range 10 {
		id := fmt.Sprint("a", i)
		createFamily(t, store, id)
		crashed := newPath(t)
		copyTo(t, path, crashed)
		again := open(t, crashed)
		if _, err := again.Lookup(t.Context(), digestOf(id)); err != nil {
			t.Errorf("update %d: %v", i, err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestTheLogIsEmptiedOnTheWay(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	store := open(t, path)
	defer store.Close()
	const updates = 3000
	for i := range updates {
		err := store.Update(t.Context(), func(tx keystore.Tx) error {
			return tx.SetSetting("s", bytes.Repeat([]byte{byte(i)}, 10_000))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if limit := int64(16 << 20); info.Size() > limit {
		t.Errorf("after %d updates the log has %d bytes, more than %d", updates, info.Size(), limit)
	}
}

func TestClosingLeavesOneFile(t *testing.T) {
	path := makeStore(t)
	if got := fmt.Sprint(namesIn(t, filepath.Dir(path))); got != "[keys.db keys.db.lock]" {
		t.Errorf("files: %s", got)
	}
}

func TestABackupIsPrivateAndLeavesNothingBehind(t *testing.T) {
	skipModes(t)
	path := newPath(t)
	store := open(t, path)
	defer store.Close()
	createFamily(t, store, "a")
	before := namesIn(t, filepath.Dir(path))
	looked := false
	err := store.Backup(t.Context(), writerFunc(func(p []byte) (int, error) {
		looked = true
		for _, name := range namesIn(t, filepath.Dir(path)) {
			if mode := modeOf(t, filepath.Join(filepath.Dir(path), name)); mode != 0o600 {
				t.Errorf("%s has mode %04o", name, mode)
			}
		}
		return len(p), nil
	}))
	if err != nil || !looked {
		t.Errorf("Backup: %v", err)
	}
	if after := namesIn(t, filepath.Dir(path)); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("files before %q, after %q", before, after)
	}
}

func TestABackupEndsWithItsContext(t *testing.T) {
	path := newPath(t)
	store := open(t, path)
	defer store.Close()
	createFamily(t, store, "a")
	before := namesIn(t, filepath.Dir(path))
	ctx, cancel := context.WithCancel(t.Context())
	err := store.Backup(ctx, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if after := namesIn(t, filepath.Dir(path)); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("files before %q, after %q", before, after)
	}
}

func TestABackupThatIsNotTakenDoesNotHoldUpClose(t *testing.T) {
	store := open(t, newPath(t))
	writing, stuck := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := store.Backup(t.Context(), writerFunc(func(p []byte) (int, error) {
			close(writing)
			<-stuck
			return len(p), nil
		}))
		// This write may have been the last, so that all was written.
		if err != nil && !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("Backup: %v", err)
		}
	})
	<-writing
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	close(stuck)
	wg.Wait()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func BenchmarkLookup(b *testing.B) {
	const rows = 100_000
	store := benchmarkStore(b, rows)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := store.Lookup(b.Context(), benchmarkDigest(i*7919%rows)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupParallel(b *testing.B) {
	const rows = 100_000
	store := benchmarkStore(b, rows)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := store.Lookup(b.Context(), benchmarkDigest(i*7919%rows)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			store := benchmarkStore(b, writers)
			var wg sync.WaitGroup
			next := make(chan int)
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for i := range next {
						err := store.Update(b.Context(), func(tx keystore.Tx) error {
							return tx.RecordUses([]keystore.Use{{KeyID: benchmarkID(i % writers), First: 1, Last: keystore.Instant(i + 1)}})
						})
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				next <- i
			}
			close(next)
			wg.Wait()
		})
	}
}

func benchmarkID(i int) string { return fmt.Sprintf("%012d", i) }

func benchmarkDigest(i int) (d keystore.Digest) {
	copy(d[:], fmt.Sprint(i*2654435761%1000003, "/", i))
	return d
}

// benchmarkStore has rows keys, ten to a credential.
func benchmarkStore(b *testing.B, rows int) *sqlstore.Store {
	b.Helper()
	store := open(b, newPath(b))
	b.Cleanup(func() { _ = store.Close() })
	err := store.Update(b.Context(), func(tx keystore.Tx) error {
		for i := range rows {
			c := fmt.Sprintf("00000000-0000-7000-8000-%012d", i/10)
			if i%10 == 0 {
				if err := tx.CreateAccount(&keystore.Account{ID: "account-" + c, Active: true}); err != nil {
					return err
				}
				if err := tx.CreateCredential(&keystore.Credential{ID: c, AccountID: "account-" + c, Active: true}); err != nil {
					return err
				}
			}
			if err := tx.CreateKey(&keystore.Key{ID: benchmarkID(i), CredentialID: c, Digest: benchmarkDigest(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return store
}
