package sqlstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// rotated is a key that was made, and when it was asked for and answered.
type rotated struct {
	key          string
	began, acked time.Time
}

// history is the keys of credentials, each the one after the other: a rotation
// revokes the key before it.
type history map[string][]rotated

// rotateFor rotates credentials of its own, each in a goroutine, until stop ends.
func rotateFor(s *shop, stop context.Context, done *atomic.Int64) history {
	const workers = 8
	out := make(history)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range workers {
		first := s.issue()
		all.Go(func() {
			keys := []rotated{{key: first.Key.ID}}
			for stop.Err() == nil {
				began := time.Now()
				made, err := s.Rotate(context.Background(), keystore.Operator(), keystore.Rotation{CredentialID: first.Credential.ID})
				if err != nil {
					s.t.Error(err)
					return
				}
				keys = append(keys, rotated{made.Key.ID, began, time.Now()})
				done.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			out[first.Credential.ID] = keys
		})
	}
	all.Wait()
	return out
}

// complaints says what of a restored store is not as it was at one instant between
// begin and end.
func (h history) complaints(r keystore.Reader, begin, end time.Time) (found []string) {
	complain := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for credential, made := range h {
		keys, err := r.Keys(credential, keystore.Page{})
		if err != nil || len(keys) == 0 || len(keys) > len(made) {
			complain("credential %s has %d keys of %d: %v", credential, len(keys), len(made), err)
			continue
		}
		for i, k := range keys {
			if k.ID != made[i].key {
				complain("key %d of %s is another", i, credential)
			}
			if last := i == len(keys)-1; (k.RevokedAt == 0) != last {
				complain("key %d of %d of %s is half rotated", i, len(keys), credential)
			}
		}
		if n := len(keys); n < len(made) && made[n].acked.Before(begin) {
			complain("%s lacks a rotation that was answered before the backup", credential)
		}
		if made[len(keys)-1].began.After(end) {
			complain("%s has a rotation from after the backup", credential)
		}
	}
	return found
}

// complaintsOf opens a store and judges it.
func (h history) complaintsOf(t *testing.T, path string, begin, end time.Time) (found []string) {
	t.Helper()
	store := open(t, path)
	defer store.Close()
	err := store.View(t.Context(), func(r keystore.Reader) error {
		found = h.complaints(r, begin, end)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func waitUntil(t *testing.T, n *atomic.Int64, at int64) {
	t.Helper()
	for n.Load() < at {
		if t.Failed() {
			t.FailNow()
		}
		time.Sleep(time.Millisecond)
	}
}

// copied is a copy of a running store, made between two moments.
type copied struct {
	path       string
	begin, end time.Time
}

func TestABackupUnderLoadIsOfOneInstant(t *testing.T) {
	s := openShop(t, newPath(t))
	fill(t, s, 20_000) // so that a backup takes its time
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done atomic.Int64
	var histories = make(chan history, 1)
	go func() { histories <- rotateFor(s, stop, &done) }()

	var backups, bare []copied
	for range 3 {
		waitUntil(t, &done, done.Load()+200)
		c := copied{begin: time.Now()}
		c.path = s.backUp()
		c.end = time.Now()
		backups = append(backups, c)
		waitUntil(t, &done, done.Load()+50)
		c = copied{path: filepath.Join(t.TempDir(), "bare", "keys.db"), begin: time.Now()}
		copyBare(t, s.path, c.path)
		c.end = time.Now()
		bare = append(bare, c)
	}
	waitUntil(t, &done, done.Load()+50)
	cancel()
	h := <-histories
	s.close()

	var path string
	var begin, end time.Time
	for i, c := range backups {
		path, begin, end = newPath(t), c.begin, c.end
		if _, err := restore(t, path, c.path, false); err != nil {
			t.Fatal(err)
		}
		for _, complaint := range h.complaintsOf(t, path, begin, end) {
			t.Errorf("backup %d: %s", i, complaint)
		}
		t.Logf("backup %d took %v", i, end.Sub(begin))
	}
	t.Logf("%d rotations", done.Load())

	// The controls: what is no backup, and what no backup may be, is noticed.
	t.Run("a copy of the file without its log is noticed", func(t *testing.T) {
		noticed := 0
		for _, c := range bare {
			to := newPath(t)
			if _, err := restore(t, to, c.path, false); err != nil || len(h.complaintsOf(t, to, c.begin, c.end)) > 0 {
				noticed++
			}
		}
		if noticed == 0 {
			t.Errorf("none of %d is", len(bare))
		}
	})
	t.Run("a lost rotation is noticed", func(t *testing.T) {
		if c := h.complaintsOf(t, path, time.Now(), time.Now()); len(c) == 0 {
			t.Error("nothing is missing of all that was answered since")
		}
	})
	t.Run("a rotation from after the end is noticed", func(t *testing.T) {
		if c := h.complaintsOf(t, path, time.Time{}, time.Time{}); len(c) == 0 {
			t.Error("everything began before the beginning of time")
		}
	})
	t.Run("a half rotation is noticed", func(t *testing.T) {
		revive(t, path, h)
		if c := h.complaintsOf(t, path, begin, end); len(c) == 0 {
			t.Error("two live keys of a credential are as they should be")
		}
	})
}

// fill imports keys that nobody uses.
func fill(t *testing.T, s *shop, n int) {
	t.Helper()
	err := s.vault.Update(t.Context(), func(tx keystore.Tx) error {
		account := keystore.Account{ID: "filling", CreatedAt: 1}
		credential := keystore.Credential{ID: "filling", AccountID: "filling", CreatedAt: 1}
		if _, err := tx.LoadAccount(&account); err != nil {
			return err
		}
		if _, err := tx.LoadCredential(&credential); err != nil {
			return err
		}
		for i := range n {
			id := fmt.Sprint("filling ", i)
			if _, err := tx.LoadKey(&keystore.Key{ID: id, CredentialID: "filling", Digest: digestOf(id), CreatedAt: 1}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// copyBare copies a store's file without its log.
func copyBare(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, read(t, from), 0o600); err != nil {
		t.Fatal(err)
	}
}

// revive undoes a revocation, as a rotation would that was done by half.
func revive(t *testing.T, path string, h history) {
	t.Helper()
	store := open(t, path)
	defer store.Close()
	err := store.Update(t.Context(), func(tx keystore.Tx) error {
		for credential := range h {
			keys, err := tx.Keys(credential, keystore.Page{})
			if err != nil {
				return err
			}
			i := slices.IndexFunc(keys, func(k *keystore.Key) bool { return k.RevokedAt != 0 })
			if i < 0 {
				continue
			}
			keys[i].RevokedAt = 0
			return tx.UpdateKey(keys[i])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
