package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
)

// statement names one of the statements below.
type statement int

const (
	lookup statement = iota

	accountByID
	accountByEmail
	accountPosition
	accountPage
	credentialByID
	credentialPosition
	credentialPage
	keyByID
	keyPosition
	keyPage
	unendedKeys
	unendedKeysOfAccount
	keyByDigest
	anyAccount
	anyAccountByEmail
	anyAccountByNumber
	anyCredential
	accountDeleted
	accountOfGrant
	credentialDeleted
	credentialDigests
	accountDigests
	digestPage
	lastKey
	setting
	nextMail
	dueMails
	countMails
	throttle
	reply
	everyAccount
	everyCredential
	everyKey

	// Those from here on write, and are prepared for the writer only.
	insertAccount
	updateAccount
	insertCredential
	updateCredential
	insertKey
	addCredential
	addKey
	addGrant
	loadAccount
	loadCredential
	loadKey
	loadGrant
	updateKey
	recordUses
	insertGrant
	updateGrant
	updateGrantsOfCredential
	updateGrantsOfAccount
	updateGrantsUsed
	takeKeyBack
	putSetting
	putMail
	updateMail
	deleteMail
	putThrottle
	putReply
	pruneThrottles
	pruneReplies
	savepoint
	rollbackTo
	release

	statements
)

// firstRead and firstWrite divide the look-up, the statements that read and
// those that write.
const (
	firstRead  = accountByID
	firstWrite = insertAccount
)

const (
	accountColumns = `number, id, email, active, roles, first_name, last_name,
		company, phone, address, siren, attributes, created_at, updated_at, deleted_at`

	credentialColumns = `c.seq, c.id, c.account_id, c.package, c.roles, c.active, c.description,
		c.allowed_ips, c.metadata, c.expires_at, c.created_at, c.updated_at, c.deleted_at`

	keyColumns = `k.seq, k.id, k.credential_id, k.digest, k.digest_kind, k.hint, k.format, k.sealed,
		k.created_at, k.activates_at, k.expires_at, k.unused_expires_at, k.revoked_at, k.revoked_reason,
		k.superseded_by, k.superseded_at, k.stops_on_use_of, k.first_used_at, k.last_used_at, k.mailed`

	// What is inserted into the tables that number their rows themselves.
	intoCredentials = `INSERT INTO credentials (id, account_id, package, roles, active, description,
			allowed_ips, metadata, expires_at, created_at, updated_at, deleted_at)`
	intoKeys = `INSERT INTO keys (id, credential_id, digest, digest_kind, hint, format, sealed,
			created_at, activates_at, expires_at, unused_expires_at, revoked_at, revoked_reason,
			superseded_by, superseded_at, stops_on_use_of, first_used_at, last_used_at, mailed)`
	credentialInsert = intoCredentials + `
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`
	keyInsert = intoKeys + `
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`
)

// texts are the statements, for every engine. Each is served by a primary key
// or by an index of the schema.
var texts = [statements]string{
	// The request path. Tombstones included.
	lookup: `SELECT ` + grantColumns + ` FROM grants WHERE digest = $1`,

	accountByID:     `SELECT ` + accountColumns + ` FROM accounts WHERE id = $1 AND deleted_at = 0`,
	accountByEmail:  `SELECT ` + accountColumns + ` FROM accounts WHERE email_key = $1 AND deleted_at = 0`,
	accountPosition: `SELECT number FROM accounts WHERE id = $1 AND deleted_at = 0`,
	accountPage: `SELECT ` + accountColumns + ` FROM accounts
		WHERE number > $1 AND deleted_at = 0 ORDER BY number LIMIT $2`,

	credentialByID: `SELECT ` + credentialColumns + ` FROM credentials c JOIN accounts a ON a.id = c.account_id
		WHERE c.id = $1 AND c.deleted_at = 0 AND a.deleted_at = 0`,
	credentialPosition: `SELECT c.seq FROM credentials c JOIN accounts a ON a.id = c.account_id
		WHERE c.id = $2 AND c.account_id = $1 AND c.deleted_at = 0 AND a.deleted_at = 0`,
	credentialPage: `SELECT ` + credentialColumns + ` FROM credentials c JOIN accounts a ON a.id = c.account_id
		WHERE c.account_id = $1 AND c.seq > $2 AND c.deleted_at = 0 AND a.deleted_at = 0
		ORDER BY c.seq LIMIT $3`,

	keyByID:     `SELECT ` + keyColumns + ` FROM keys k WHERE id = $1`,
	keyPosition: `SELECT seq FROM keys WHERE id = $2 AND credential_id = $1`,
	keyPage: `SELECT ` + keyColumns + ` FROM keys k
		WHERE credential_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
	unendedKeys: `SELECT ` + keyColumns + ` FROM keys k
		WHERE credential_id = $1 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > $2)
		ORDER BY seq`,
	unendedKeysOfAccount: `SELECT ` + keyColumns + ` FROM credentials c
		JOIN accounts a ON a.id = c.account_id JOIN keys k ON k.credential_id = c.id
		WHERE c.account_id = $1 AND c.deleted_at = 0 AND a.deleted_at = 0
			AND k.revoked_at = 0 AND (k.expires_at = 0 OR k.expires_at > $2)
		ORDER BY c.seq, k.seq`,

	keyByDigest: `SELECT ` + keyColumns + ` FROM grants g JOIN keys k ON k.id = g.key_id WHERE g.digest = $1`,

	// Tombstones included.
	anyAccount:         `SELECT ` + accountColumns + ` FROM accounts WHERE id = $1`,
	anyAccountByEmail:  `SELECT ` + accountColumns + ` FROM accounts WHERE email_key = $1`,
	anyAccountByNumber: `SELECT ` + accountColumns + ` FROM accounts WHERE number = $1`,
	accountDeleted:     `SELECT deleted_at FROM accounts WHERE id = $1`,
	accountOfGrant:     `SELECT number, email, active FROM accounts WHERE id = $1 AND deleted_at = 0`,
	credentialDeleted: `SELECT CASE WHEN c.deleted_at = 0 THEN a.deleted_at ELSE c.deleted_at END
		FROM credentials c JOIN accounts a ON a.id = c.account_id WHERE c.id = $1`,
	anyCredential: `SELECT ` + credentialColumns + ` FROM credentials c WHERE c.id = $1`,

	credentialDigests: `SELECT digest FROM keys WHERE credential_id = $1 AND revoked_at = 0 ORDER BY seq`,
	accountDigests: `SELECT k.digest FROM credentials c JOIN keys k ON k.credential_id = c.id
		WHERE c.account_id = $1 AND k.revoked_at = 0`,
	digestPage: `SELECT digest FROM grants WHERE digest > $1 ORDER BY digest LIMIT $2`,
	lastKey:    `SELECT coalesce(max(seq), 0) FROM keys`,

	setting: `SELECT value FROM settings WHERE name = $1`,

	nextMail: `SELECT id, account_id, package, requested_at, due_at, attempts
		FROM outbox ORDER BY due_at LIMIT 1`,
	dueMails: `SELECT id, account_id, package, requested_at, due_at, attempts
		FROM outbox WHERE due_at <= $1 AND id > $2 ORDER BY id LIMIT $3`,
	countMails: `SELECT count(*) FROM outbox`,
	throttle:   `SELECT until_at FROM throttles WHERE digest = $1`,
	reply:      `SELECT digest, request, sealed, expires_at FROM replies WHERE digest = $1`,

	// Tombstones included, in the order of the primary keys.
	everyAccount:    `SELECT ` + accountColumns + ` FROM accounts WHERE number > $1 ORDER BY number LIMIT $2`,
	everyCredential: `SELECT ` + credentialColumns + ` FROM credentials c WHERE c.seq > $1 ORDER BY c.seq LIMIT $2`,
	everyKey:        `SELECT ` + keyColumns + ` FROM keys k WHERE k.seq > $1 ORDER BY k.seq LIMIT $2`,

	// One more than the highest is safe because nothing else writes between
	// the look at the highest and the commit: see the writer.
	insertAccount: `INSERT INTO accounts (number, id, email, email_key, active, roles, first_name, last_name,
			company, phone, address, siren, attributes, created_at, updated_at, deleted_at)
		VALUES ((SELECT coalesce(max(number), 0) + 1 FROM accounts),
			$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		RETURNING number`,
	updateAccount: `UPDATE accounts SET email = $2, email_key = $3, active = $4, roles = $5,
			first_name = $6, last_name = $7, company = $8, phone = $9, address = $10, siren = $11,
			attributes = $12, updated_at = $13, deleted_at = $14
		WHERE id = $1 AND deleted_at = 0`,

	// Selecting the parent makes a parent that is a tombstone as absent as one
	// that never was: no row is inserted.
	insertCredential: intoCredentials + `
		SELECT $1, id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
		FROM accounts WHERE id = $2 AND deleted_at = 0
		RETURNING seq`,
	updateCredential: `UPDATE credentials SET account_id = $2, package = $3, roles = $4, active = $5,
			description = $6, allowed_ips = $7, metadata = $8, expires_at = $9,
			updated_at = $10, deleted_at = $11
		WHERE id = $1 AND deleted_at = 0`,

	insertKey: intoKeys + `
		SELECT $1, c.id, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19
		FROM credentials c JOIN accounts a ON a.id = c.account_id
		WHERE c.id = $2 AND c.deleted_at = 0 AND a.deleted_at = 0
		RETURNING seq`,
	updateKey: `UPDATE keys SET credential_id = $2, hint = $3, format = $4, sealed = $5,
			activates_at = $6, expires_at = $7, unused_expires_at = $8, revoked_at = $9,
			revoked_reason = $10, superseded_by = $11, superseded_at = $12, stops_on_use_of = $13,
			first_used_at = $14, mailed = $15
		WHERE id = $1`,

	// The add and load statements take their values as they are and return nothing:
	// from a SELECT, or with RETURNING, SQLite would keep a journal of each statement,
	// and that costs more the more was stored before it. Who adds knows the owner; see
	// createWithKey.
	addCredential: credentialInsert,
	addKey:        keyInsert,
	addGrant: `INSERT INTO grants (digest, ` + grantColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`,

	// The load statements store nothing where something is in the way.
	loadAccount: `INSERT INTO accounts (id, email, email_key, active, roles, first_name, last_name,
			company, phone, address, siren, attributes, created_at, updated_at, deleted_at, number)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
			CASE WHEN CAST($16 AS BIGINT) = 0 THEN (SELECT coalesce(max(number), 0) + 1 FROM accounts) ELSE CAST($16 AS BIGINT) END)
		ON CONFLICT DO NOTHING`,
	loadCredential: credentialInsert + ` ON CONFLICT DO NOTHING`,
	loadKey:        keyInsert + ` ON CONFLICT DO NOTHING`,

	takeKeyBack: `DELETE FROM keys WHERE id = $1`,

	recordUses: recordUsesText(),

	insertGrant:              grantInsert(),
	loadGrant:                grantLoad(),
	updateGrant:              grantUpdate(`k.id = $1`),
	updateGrantsOfCredential: grantUpdate(`c.id = $1`),
	updateGrantsOfAccount:    grantUpdate(`a.id = $1`),
	updateGrantsUsed: `UPDATE grants SET first_used_at = k.first_used_at FROM keys k
		WHERE k.id IN (` + placeholders(1, usesAtOnce) + `) AND grants.digest = k.digest AND grants.key_id = k.id
			AND grants.first_used_at <> k.first_used_at`,

	putSetting: `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`,

	putMail: `INSERT INTO outbox (id, account_id, package, requested_at, due_at, attempts)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (account_id, package) DO UPDATE SET id = excluded.id,
			requested_at = excluded.requested_at, due_at = excluded.due_at, attempts = excluded.attempts`,
	updateMail: `UPDATE outbox SET due_at = $2, attempts = $3 WHERE id = $1`,
	deleteMail: `DELETE FROM outbox WHERE id = $1`,

	putThrottle: `INSERT INTO throttles (digest, until_at) VALUES ($1, $2)
		ON CONFLICT (digest) DO UPDATE SET until_at = excluded.until_at`,

	putReply: `INSERT INTO replies (digest, request, sealed, expires_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (digest) DO UPDATE SET request = excluded.request, sealed = excluded.sealed,
			expires_at = excluded.expires_at`,

	pruneThrottles: `DELETE FROM throttles WHERE until_at <= $1`,
	pruneReplies:   `DELETE FROM replies WHERE expires_at <= $1`,

	savepoint:  `SAVEPOINT change`,
	rollbackTo: `ROLLBACK TO SAVEPOINT change`,
	release:    `RELEASE SAVEPOINT change`,
}

// database is a pool of connections with the statements prepared on it.
type database struct {
	*sql.DB
	prepared [statements]*sql.Stmt
}

// prepare prepares the statements from first up to but not including end.
func (db *database) prepare(ctx context.Context, first, end statement) error {
	for s := first; s < end; s++ {
		stmt, err := db.PrepareContext(ctx, texts[s])
		if err != nil {
			return fmt.Errorf("prepare statement: %w", err)
		}
		db.prepared[s] = stmt
	}
	return nil
}

// usesAtOnce is how many uses one statement records.
const usesAtOnce = 32

// recordUsesText has an id, a first and a last use of that many keys. A use that tells
// nothing new writes nothing.
func recordUsesText() string {
	used := `(CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS BIGINT))`
	for i := 1; i < usesAtOnce; i++ {
		used += `, (` + placeholders(3*i+1, 3) + `)`
	}
	return `WITH used (id, first_use, last_use) AS (VALUES ` + used + `)
		UPDATE keys SET
			first_used_at = CASE WHEN first_used_at = 0 THEN used.first_use ELSE first_used_at END,
			last_used_at = CASE WHEN last_used_at < used.last_use THEN used.last_use ELSE last_used_at END
		FROM used
		WHERE keys.id = used.id AND (last_used_at < used.last_use OR first_used_at = 0)
		RETURNING first_used_at`
}
