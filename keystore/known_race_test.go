package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestNoFreshKeyIsRefusedWhileFiltersAreBuilt makes keys in every way and presents
// each at once, while one filter after the other is built; then a store that is
// opened again has them all.
func TestNoFreshKeyIsRefusedWhileFiltersAreBuilt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store", "keys.db")
	r := openRing(t, path, keystore.Config{}, keystore.MinCacheSize)
	awaitFilter(t, r.vault) // one build at a time: the vault's own is through
	ctx, stop := context.WithCancel(t.Context())
	built := 0
	var builder sync.WaitGroup
	builder.Go(func() {
		for ctx.Err() == nil {
			if err := r.vault.BuildFilter(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			built++
		}
	})
	const makers, rounds = 8, 60
	texts := make([][]string, makers)
	var wg sync.WaitGroup
	for m := range makers {
		wg.Go(func() {
			for i := range rounds {
				for _, text := range makeKeys(t, r, fmt.Sprintf("%d-%d", m, i)) {
					if _, v, err := r.Verify(t.Context(), text); v != keystore.OK {
						t.Errorf("a fresh key is refused: %v, %v", v, err)
					}
					texts[m] = append(texts[m], text)
				}
			}
		})
	}
	wg.Wait()
	stop()
	builder.Wait()
	t.Logf("%d filters were built meanwhile", built)
	if built < 3 {
		t.Error("hardly any filter was built: nothing was tested")
	}
	if err := r.vault.Close(); err != nil {
		t.Fatal(err)
	}

	again := openRing(t, path, keystore.Config{}, keystore.MinCacheSize)
	for round := range 2 { // before the filter is complete, and after
		for _, list := range texts {
			for _, text := range list {
				if v := again.verdict(text); v != keystore.OK {
					t.Fatalf("round %d: a key from before is refused: %v", round, v)
				}
			}
		}
		awaitFilter(t, again.vault)
	}
}

// makeKeys issues a key, rotates it, and imports one.
func makeKeys(t *testing.T, r *ring, name string) []string {
	account, err := r.CreateAccount(t.Context(), keystore.Account{})
	if err != nil {
		t.Error(err)
		return nil
	}
	issued, err := r.Issue(t.Context(), keystore.Operator(), keystore.Credential{AccountID: account.ID})
	if err != nil {
		t.Error(err)
		return nil
	}
	rotated, err := r.Rotate(t.Context(), keystore.Operator(),
		keystore.Rotation{CredentialID: issued.Credential.ID, Overlap: keystore.Overlap{For: time.Hour}})
	if err != nil {
		t.Error(err)
		return nil
	}
	imported := "imported-" + name
	record, err := r.GrantRecord(keystore.Account{ID: account.ID}, keystore.Credential{}, keystore.Key{}, keystore.Material{Text: imported})
	if err != nil {
		t.Error(err)
		return nil
	}
	if _, _, err := r.Import(t.Context(), []keystore.Record{record}); err != nil {
		t.Error(err)
		return nil
	}
	return []string{issued.Text, rotated.Text, imported}
}

// awaitFilter waits until the filter of known keys is complete.
func awaitFilter(t *testing.T, v *keystore.Vault) {
	t.Helper()
	for range 5000 {
		if v.Denies("nobody's key") {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the filter is not complete")
}

// TestBothDigestsOfAPepperedRingAreKnown: a text is looked for under two, of which
// one is unknown at best.
func TestBothDigestsOfAPepperedRingAreKnown(t *testing.T) {
	r := newRing(t, keystore.Config{Pepper: []byte("a pepper of the test")})
	awaitFilter(t, r.vault)
	issued := r.issue(keystore.Credential{})
	plain := "imported"
	imports(t, r.Keyring, keystore.Imported{Accounts: 1, Credentials: 1, Keys: 1},
		grantOf(t, r.Keyring, keystore.Account{ID: "acme"}, keystore.Credential{}, keystore.Material{Digest: digestOfText(plain)}))
	before := r.vault.Misses()
	for range 100 {
		if v := r.verdict("nobody's key"); v != keystore.InvalidKey {
			t.Fatal(v)
		}
	}
	if n := r.vault.Misses() - before; n != 0 {
		t.Errorf("%d reads of the store for unknown keys", n)
	}
	for _, text := range []string{issued.Text, plain} {
		if v := r.verdict(text); v != keystore.OK {
			t.Errorf("%s: %v", text, v)
		}
	}
}
