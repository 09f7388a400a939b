//go:build reliability && linux

package reliability

import (
	"crypto/sha256"
	"database/sql"
	"net/url"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file reads a store's tables, past the code that wrote them.

// nowhere are what no sequence of whole changes can leave, as queries that find
// the id of a record.
var nowhere = []struct{ what, query string }{
	{"is bounded by a key that is not there", `SELECT k.id FROM keys k WHERE k.superseded_by <> '' AND NOT EXISTS
		(SELECT 1 FROM keys n WHERE n.id = k.superseded_by AND n.credential_id = k.credential_id AND n.seq > k.seq)`},
	{"stops on the use of a key that is not there", `SELECT k.id FROM keys k WHERE k.stops_on_use_of <> '' AND NOT EXISTS
		(SELECT 1 FROM keys n WHERE n.id = k.stops_on_use_of AND n.credential_id = k.credential_id AND n.seq > k.seq AND n.unused_expires_at <> 0)`},
	{"is bounded by half", `SELECT id FROM keys WHERE (superseded_by = '') <> (superseded_at = 0)
		OR (revoked_reason = 'rotated' AND (superseded_by = '' OR revoked_at = 0))`},
	{"was rotated and is not bounded", `SELECT k.id FROM keys k WHERE k.revoked_at = 0 AND k.superseded_by = '' AND k.stops_on_use_of = ''
		AND EXISTS (SELECT 1 FROM keys n WHERE n.credential_id = k.credential_id AND n.seq > k.seq)`},
	{"works beside a newer key that was taken into use", `SELECT o.id FROM keys o JOIN keys n ON n.credential_id = o.credential_id AND n.seq > o.seq
		WHERE n.unused_expires_at <> 0 AND n.first_used_at <> 0 AND o.revoked_at = 0 AND (o.expires_at = 0 OR o.expires_at > n.first_used_at)`},
	// The newest key ends by hand only; nothing else may leave a credential without.
	{"is a credential without a working key", `SELECT c.id FROM credentials c WHERE c.deleted_at = 0 AND NOT EXISTS
		(SELECT 1 FROM keys k WHERE k.credential_id = c.id AND k.seq = (SELECT max(seq) FROM keys WHERE credential_id = c.id)
			AND (k.revoked_at = 0 AND k.expires_at = 0 OR k.revoked_reason IN ('by hand', 'the mail was refused')))`},
	{"works though its credential or account is deleted", `SELECT k.id FROM keys k JOIN credentials c ON c.id = k.credential_id
		JOIN accounts a ON a.id = c.account_id WHERE k.revoked_at = 0 AND k.expires_at = 0 AND (c.deleted_at <> 0 OR a.deleted_at <> 0)`},
	{"has a grant that differs from its records, or none", `SELECT stray FROM (SELECT k.id AS stray, ` + grantSources + ` EXCEPT SELECT key_id, * FROM grants) AS s`},
	{"is in a grant only", `SELECT stray FROM (SELECT key_id AS stray, * FROM grants EXCEPT SELECT k.id, ` + grantSources + `) AS s`},
}

// grantSources are the rows that the table grants has to have.
const grantSources = `k.digest, k.id, k.digest_kind, k.activates_at, k.expires_at, k.unused_expires_at, k.first_used_at,
		k.revoked_at, k.superseded_by <> '', c.id, c.package, c.roles, c.allowed_ips, c.active AND c.deleted_at = 0,
		c.expires_at, a.id, a.number, a.email, a.active AND a.deleted_at = 0
	FROM keys k JOIN credentials c ON c.id = k.credential_id JOIN accounts a ON a.id = c.account_id`

// checkRecords looks at the tables of the open store at that place.
func (l *ledger) checkRecords(t *testing.T, place string, f findings) {
	t.Helper()
	db := openTables(t, place)
	defer db.Close()
	if !inPostgres(place) {
		checkFile(t, db, f)
	}
	for _, n := range nowhere {
		for _, id := range columnOf(t, db, n.query) {
			f.add(findHalf, "%s %s", id, n.what)
		}
	}
	l.checkKeys(t, db, f)
	l.checkAccounts(t, db, f)
	l.checkMails(t, db, f)
}

// checkFile has SQLite look for damage.
func checkFile(t *testing.T, db *sql.DB, f findings) {
	t.Helper()
	for _, said := range columnOf(t, db, "PRAGMA integrity_check") {
		if said != "ok" {
			f.add(findUnsound, "integrity_check: %s", said)
		}
	}
	for range columnOf(t, db, "SELECT \"table\" FROM pragma_foreign_key_check") {
		f.add(findUnsound, "foreign_key_check finds a row")
	}
}

// openTables opens the store at that place beside whoever has it.
func openTables(t *testing.T, place string) *sql.DB {
	t.Helper()
	driver, source := "sqlite", "file://"+(&url.URL{Path: place}).EscapedPath()+"?mode=rw&_pragma=busy_timeout(5000)"
	if inPostgres(place) {
		driver, source = "pgx", place
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// columnOf is the first column of what a query finds.
func columnOf(t *testing.T, db *sql.DB, query string) (found []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			t.Fatal(err)
		}
		found = append(found, value)
	}
	if err := rows.Err(); err != nil {
		// A page that is not sound may be met by any query.
		found = append(found, err.Error())
	}
	return found
}

// columnSet is column, for looking up.
func columnSet(t *testing.T, db *sql.DB, query string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, value := range columnOf(t, db, query) {
		found[value] = true
	}
	return found
}

func (l *ledger) checkKeys(t *testing.T, db *sql.DB, f findings) {
	t.Helper()
	for _, c := range []struct {
		kind, query string
		promised    map[string]bool
	}{
		{findMissing, "SELECT id FROM keys", keysOf(l.texts)},
		{findAlive, "SELECT id FROM keys WHERE revoked_at <> 0", l.revoked},
		{findMissing, "SELECT id FROM keys WHERE first_used_at <> 0", l.used},
		{findAlive, "SELECT id FROM keys WHERE superseded_by <> '' AND expires_at <> 0 OR stops_on_use_of <> '' OR revoked_at <> 0", keysOf(l.bounded)},
		{findAlive, "SELECT id FROM keys WHERE superseded_by <> '' AND expires_at <> 0 OR revoked_at <> 0", l.boundedFor("1h")},
	} {
		there := columnSet(t, db, c.query)
		for id := range c.promised {
			if !there[id] {
				f.add(c.kind, "key %s is not among: %s", id, c.query)
			}
		}
	}
}

func keysOf(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// boundedFor are the keys bounded by a rotation with that overlap.
func (l *ledger) boundedFor(overlap string) map[string]bool {
	out := map[string]bool{}
	for id, o := range l.bounded {
		if o == overlap {
			out[id] = true
		}
	}
	return out
}

func (l *ledger) checkAccounts(t *testing.T, db *sql.DB, f findings) {
	t.Helper()
	there := columnSet(t, db, "SELECT id FROM accounts")
	for id := range l.accounts {
		if !there[id] {
			f.add(findMissing, "account %s", id)
		}
	}
	gone := columnSet(t, db, "SELECT id FROM accounts WHERE deleted_at <> 0")
	for id := range l.deleted {
		if !gone[id] {
			f.add(findAlive, "account %s", id)
		}
	}
}

// checkMails looks for each mail that was asked for: it waits, or its key was
// made. That the address is throttled must not be forgotten either.
func (l *ledger) checkMails(t *testing.T, db *sql.DB, f findings) {
	t.Helper()
	there := columnSet(t, db, `SELECT account_id FROM outbox UNION SELECT c.account_id FROM keys k JOIN credentials c ON c.id = k.credential_id WHERE k.mailed
		UNION SELECT id FROM accounts WHERE deleted_at <> 0`)
	throttled := columnSet(t, db, "SELECT digest FROM throttles")
	for id, address := range l.mails {
		if !there[id] {
			f.add(findMissing, "the mail of account %s", id)
		}
		if !throttled[addressDigest(address)] {
			f.add(findMissing, "the throttle of account %s", id)
		}
	}
}

// addressDigest is under what an address is throttled.
func addressDigest(address string) string {
	digest := sha256.Sum256([]byte(keystore.EmailKey(address)))
	return string(digest[:])
}
