//go:build reliability && linux

package reliability

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTheCheckFinds is the control of the check: each kind of damage, done by
// hand to a store in which nothing is wrong, is found.
func TestTheCheckFinds(t *testing.T) {
	whole := newStorePath(t)
	w := startWriter(t, whole, "")
	for _, kind := range []string{eventRevoked, eventUsed, eventMail, eventOnce, eventDeleted} {
		w.readFor(kind)
	}
	for len(w.events) < 400 && !w.ended { // enough to have some of everything
		w.readUntil(time.Now().Add(time.Millisecond))
	}
	l := newLedger()
	l.note(w.killed()...)
	l.check(t, whole).report(t, "before any damage") // also moves the log into the file
	for _, c := range []struct{ what, kind, damage string }{
		{"an account is gone", findMissing, `DELETE FROM accounts WHERE id = '%[1]s'`},
		{"an account is back", findAlive, `UPDATE accounts SET deleted_at = 0`},
		{"a key is gone", findMissing, `DELETE FROM keys WHERE id = '%[2]s'`},
		{"a key has another text", findMissing, `UPDATE keys SET digest = randomblob(32) WHERE id = '%[2]s'`},
		{"a revoked key works", findAlive, `UPDATE keys SET revoked_at = 0, revoked_reason = '' WHERE id = '%[3]s'`},
		{"rotated keys work on", findAlive, `UPDATE keys SET superseded_by = '', superseded_at = 0, stops_on_use_of = '', expires_at = 0 WHERE revoked_at = 0`},
		{"a first use is forgotten", findMissing, `UPDATE keys SET first_used_at = 0`},
		{"a mail is gone", findMissing, `DELETE FROM outbox; UPDATE keys SET mailed = FALSE`},
		{"a throttle is gone", findMissing, `DELETE FROM throttles`},
		{"a reply is gone", findMissing, `DELETE FROM replies`},
		{"a reply without its change", findHalf, `UPDATE credentials SET description = ''`},
		{"a bound that leads nowhere", findHalf, `UPDATE keys SET superseded_by = 'nobody' WHERE superseded_by <> ''`},
		{"a key that waits for none", findHalf, `UPDATE keys SET stops_on_use_of = 'nobody' WHERE stops_on_use_of <> ''`},
		{"half a bound", findHalf, `UPDATE keys SET superseded_at = 0 WHERE superseded_by <> ''`},
		{"a new key only", findHalf, `UPDATE keys SET superseded_by = '', superseded_at = 0, stops_on_use_of = '', revoked_at = 0, revoked_reason = ''`},
		{"a bound only", findHalf, `DELETE FROM keys WHERE id IN (SELECT superseded_by FROM keys)`},
		{"a first use that stops nothing", findHalf, `UPDATE keys SET expires_at = 0, revoked_at = 0, revoked_reason = ''`},
		{"a credential without a key", findHalf, `DELETE FROM keys WHERE credential_id = (SELECT id FROM credentials WHERE deleted_at = 0 LIMIT 1)`},
		{"a deleted account with a key", findHalf, `UPDATE accounts SET deleted_at = 1`},
		{"a grant is as before a change", findHalf, `UPDATE grants SET revoked_at = 0, superseded = FALSE`},
		{"a grant is gone", findHalf, `DELETE FROM grants WHERE key_id = '%[2]s'`},
		{"a grant of another digest", findHalf, `UPDATE grants SET digest = randomblob(32) WHERE key_id = '%[2]s'`},
		{"a key without a credential", findUnsound, `UPDATE keys SET credential_id = 'nobody' WHERE id = '%[2]s'`},
		{"a row that no index has", findUnsound, `PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '(credential_id, seq)', '(hint, seq)')
			WHERE name = 'keys_of_credential'`},
	} {
		t.Run(c.what, func(t *testing.T) {
			path := copyStore(t, whole)
			if !strings.Contains(c.damage, "grants") {
				c.damage += "; DELETE FROM grants; INSERT INTO grants SELECT " + grantSources // so that only the damage is found
			}
			spoil(t, path, fmt.Sprintf(c.damage+" -- %[1]s %[2]s %[3]s", anyOf(l.accounts), anyOf(keysOf(l.texts)), anyOf(l.revoked)))
			if found := l.check(t, path); len(found[c.kind]) == 0 {
				t.Errorf("nothing is %s; found: %v", c.kind, found)
			}
		})
	}
	t.Run("a page is lost", func(t *testing.T) {
		path := copyStore(t, whole)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 40<<10), 60<<10); err != nil {
			t.Fatal(err)
		}
		if found := l.check(t, path); len(found[findUnsound]) == 0 {
			t.Errorf("found: %v", found)
		}
	})
}

// spoil runs SQL on a store that nobody uses, past its foreign keys.
func spoil(t *testing.T, path, text string) {
	t.Helper()
	db := openTables(t, path)
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func anyOf(m map[string]bool) string {
	for k := range m {
		return k
	}
	return ""
}
