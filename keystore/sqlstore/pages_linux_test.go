package sqlstore_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestLookUpsKeepTheirPagesAfterALargeTransaction would fail if those who read could not
// take pages of SQLite's cache from the one that writes. It is not parallel, for the
// cache is the process's.
func TestLookUpsKeepTheirPagesAfterALargeTransaction(t *testing.T) {
	store := open(t, newPath(t))
	defer store.Close()
	createFamily(t, store, "a")
	const keys, times = 5000, 200
	digest := func(i int) keystore.Digest { return sha256.Sum256(fmt.Append(nil, i)) }
	err := store.Update(t.Context(), func(tx keystore.Tx) error {
		for i := range keys {
			key := &keystore.Key{ID: fmt.Sprintf("a/k%d", i), CredentialID: "a/c", Digest: digest(i)}
			if err := tx.CreateKey(key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	createFamily(t, store, "b") // begins when what follows the transaction has ended
	before := bytesRead(t)
	for range times {
		if _, err := store.Lookup(t.Context(), digest(0)); err != nil {
			t.Fatal(err)
		}
	}
	const page = 4096
	if pages := (bytesRead(t) - before) / page; pages > times/2 {
		t.Errorf("%d pages were read for %d look-ups of one key", pages, times)
	}
}

// bytesRead is how much the process has read, from files and from the system's cache.
func bytesRead(t *testing.T) (n int) {
	t.Helper()
	counters, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("needs the kernel's I/O accounting: %v", err)
	}
	if _, err := fmt.Fscanf(bytes.NewReader(counters), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
