//go:build reliability

package reliability

import (
	"context"
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// What a machine leaves behind whose wall clock was wrong is the time that it saved
// in the store. Here that is written by hand, which is all that a test can do in
// seconds; clocks_process_test.go does it with a clock that is stepped.

// saveTime writes the time that a gateway has seen into a store that nobody has
// open; none if it is zero.
func saveTime(t *testing.T, path string, seen time.Time) {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var value []byte
	if !seen.IsZero() {
		value = binary.BigEndian.AppendUint64(nil, uint64(keystore.InstantOf(seen)))
	}
	err = store.Update(t.Context(), func(tx keystore.Tx) error { return tx.SetSetting("clock", value) })
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// behind is what the log says of a clock that is behind.
const behind = "the system clock is behind the time this store has seen"

// TestNoKeyLivesAgainAfterAnEarlierStart stops a gateway, and starts it on a store
// that has seen another time. A key that has expired by that time stays expired,
// also in an overlap; one that has not, works. The control is a store that has
// forgotten the time: on the same machine the same keys work.
func TestNoKeyLivesAgainAfterAnEarlierStart(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		seen   time.Duration // from now on
		stays  bool          // whether what ends in 12 hours has ended
		logged bool
	}{
		"a day ahead":     {day, true, true},
		"a year ahead":    {year, true, true},
		"a minute ahead":  {time.Minute, false, true},
		"a day behind":    {-day, false, false},
		"a year behind":   {-year, false, false},
		"forgotten":       {0, false, false},
		"long forgotten":  {time.Duration(-1 << 62), false, false},
		"eleven hours on": {11 * time.Hour, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := livetest.Start(t, "", "")
			lasting := g.Issue(keystore.Credential{}).Text
			ending := g.Issue(keystore.Credential{ExpiresAt: keystore.InstantOf(time.Now().Add(12 * time.Hour))}).Text
			retiring := g.Issue(keystore.Credential{})
			if _, err := g.Keyring().Rotate(context.Background(), keystore.Operator(), keystore.Rotation{
				CredentialID: retiring.Credential.ID, Overlap: keystore.Overlap{For: 12 * time.Hour},
			}); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			var seen time.Time
			if c.seen != 0 {
				seen = time.Now().Add(c.seen)
			}
			saveTime(t, g.StorePath(), seen)
			if err := g.Reload("", ""); err != nil {
				t.Fatal(err)
			}
			want := http.StatusOK
			if c.stays {
				want = http.StatusUnauthorized
			}
			for of, key := range map[string]string{"that ends": ending, "in an overlap": retiring.Text} {
				got := g.Do(1, http.MethodGet, "/", "", "X-API-Key", key)
				if got.StatusCode != want || (c.stays && got.JSON(t)["code"] != "expired_key") {
					t.Errorf("the key %s is answered %d, want %d: %s", of, got.StatusCode, want, got.Text)
				}
			}
			if got := g.Do(1, http.MethodGet, "/", "", "X-API-Key", lasting); got.StatusCode != http.StatusOK {
				t.Errorf("a key without an end is answered %d", got.StatusCode)
			}
			if logged := strings.Contains(g.Logged(), behind); logged != c.logged {
				t.Errorf("whether the log says that the clock is behind: %v, want %v", logged, c.logged)
			}
		})
	}
}
