package sqlstore

import (
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file keeps the table grants, which has what a verdict needs of a key in one
// row, so that a look-up descends one tree. The rows are copies. Every statement
// that writes to one of the tables they are from is followed by one of these, in the
// same transaction.

const (
	// grantColumns are what a look-up reads, and grantSources where that is from.
	grantColumns = `key_id, digest_kind, activates_at, expires_at, unused_expires_at, first_used_at,
		revoked_at, superseded, credential_id, package, roles, allowed_ips, credential_active,
		credential_expires_at, account_id, account_number, account_email, account_active`
	grantSources = `k.id, k.digest_kind, k.activates_at, k.expires_at, k.unused_expires_at, k.first_used_at,
		k.revoked_at, k.superseded_by <> '', c.id, c.package, c.roles, c.allowed_ips, c.active AND c.deleted_at = 0,
		c.expires_at, a.id, a.number, a.email, a.active AND a.deleted_at = 0`
	grantJoin = ` FROM keys k JOIN credentials c ON c.id = k.credential_id JOIN accounts a ON a.id = c.account_id `
)

// grantNames are the names in grantColumns.
var grantNames = strings.Fields(strings.ReplaceAll(grantColumns, ",", " "))

// What the grant of a new key has from its owners, and where that is.
var (
	fromOwners = strings.Split(grantSources, ",")[9:]
	owned      = ` FROM credentials c JOIN accounts a ON a.id = c.account_id WHERE c.id = $10`
)

// grantInsert makes the grant of a new key from the values of newGrant. A digest that
// another key has is in the way.
func grantInsert() string {
	return `INSERT INTO grants (digest, ` + grantColumns + `)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, c.id,` + strings.Join(fromOwners, ",") + owned
}

// grantLoad is grantInsert in the form of the load statements.
func grantLoad() string {
	values := `$1, $2, $3, $4, $5, $6, $7, $8, $9, $10`
	for _, source := range fromOwners {
		values += `, (SELECT` + source + owned + `)`
	}
	return `INSERT INTO grants (digest, ` + grantColumns + `) VALUES (` + values + `) ON CONFLICT DO NOTHING`
}

// newGrant are the values that a new key has itself.
func newGrant(k *keystore.Key) []any {
	return []any{k.Digest[:], k.ID, string(k.DigestKind), int64(k.ActivatesAt), int64(k.ExpiresAt), int64(k.UnusedExpiresAt),
		int64(k.FirstUsedAt), int64(k.RevokedAt), k.SupersededBy != "", k.CredentialID}
}

// grantUpdate brings the grants up to date of the keys that a condition on the join
// finds, and writes only where something differs. It never makes one key's grant
// that of another.
func grantUpdate(where string) string {
	sets := make([]string, len(grantNames))
	for i, c := range grantNames {
		sets[i] = c + ` = excluded.` + c
	}
	return `INSERT INTO grants (digest, ` + grantColumns + `)
		SELECT k.digest, ` + grantSources + grantJoin + `WHERE ` + where + `
		ON CONFLICT (digest) DO UPDATE SET ` + strings.Join(sets, ", ") + `
		WHERE grants.key_id = excluded.key_id
			AND (` + grantColumnsOf("grants") + `) <> (` + grantColumnsOf("excluded") + `)`
}

// grantColumnsOf are the columns of a table of that name.
func grantColumnsOf(table string) string {
	return table + `.` + strings.Join(grantNames, `, `+table+`.`)
}

// strayGrants finds the keys whose grant is not what their records say, and the
// grants of no key. There are none.
var strayGrants = `SELECT k.id` + grantJoin + `LEFT JOIN grants g ON g.digest = k.digest
		WHERE g.digest IS NULL OR (` + grantColumnsOf("g") + `) <> (` + grantSources + `)
	UNION ALL SELECT g.key_id FROM grants g
		WHERE NOT EXISTS (SELECT 1 FROM keys k WHERE k.id = g.key_id AND k.digest = g.digest)`
