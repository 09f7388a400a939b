package sqlstore

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file compares a store with a backup: what would a restore undo?

// Losses is what a store has that a backup of it has not.
type Losses struct {
	// Unreadable is why the store can't be compared, nil if it was or if there is
	// none.
	Unreadable error
	// Revived are keys that do not work now and would again, those that ended last
	// first, at most [MaxRevived]. RevivedCount is how many there are.
	Revived      []RevivedKey
	RevivedCount int
	// Accounts, Credentials and Keys count those that the backup does not know.
	Accounts, Credentials, Keys int
	// Changed counts accounts and credentials that were changed since, and keys
	// that were given an end since.
	Changed int
	// Seen and BackupSeen are the latest times that both have stored.
	Seen, BackupSeen keystore.Instant
}

// MaxRevived bounds the list of revived keys.
const MaxRevived = 100

// RevivedKey is a key that a restore would bring back to life.
type RevivedKey struct {
	ID, CredentialID, AccountID string
	// RevokedAt is zero of a key that ended otherwise: it expired, or it is its
	// credential or account that ended.
	RevokedAt     keystore.Instant
	RevokedReason string
}

// Any reports whether there is something that would be lost.
func (l *Losses) Any() bool {
	return l.Unreadable != nil || l.RevivedCount+l.Accounts+l.Credentials+l.Keys+l.Changed > 0 || l.Seen > l.BackupSeen
}

// losses compares the store at path, if there is one, with a staged backup, and
// lets the backup go on from the latest time that either has seen.
func losses(ctx context.Context, path, staged string) (Losses, error) {
	there := false
	for _, suffix := range []string{"", "-wal"} {
		_, err := os.Lstat(path + suffix)
		switch {
		case err == nil:
			there = true
		case !errors.Is(err, fs.ErrNotExist):
			return Losses{}, refusal(path, "%w", err)
		}
	}
	if !there {
		return Losses{}, nil
	}
	l, err := compare(ctx, path, staged)
	if err != nil && ctx.Err() == nil {
		l, err = Losses{Unreadable: err}, nil
	}
	return l, err
}

// compare opens the store as a start would.
func compare(ctx context.Context, path, staged string) (l Losses, err error) {
	e := &sqlite{path: path}
	if err := e.ensureFile(ctx); err != nil {
		return l, err
	}
	db, err := connect(path, writing)
	if err != nil {
		return l, refusal(path, "%w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := e.matchSchema(ctx, db); err != nil {
		return l, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return l, e.unreadable(err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, `ATTACH DATABASE $1 AS backup`, staged); err != nil {
		return l, refusal(path, "%w", err)
	}
	if err := l.read(ctx, conn); err != nil {
		return l, e.unreadable(err)
	}
	if _, err := conn.ExecContext(ctx, carryClock, keystore.ClockSetting); err != nil {
		return l, e.unreadable(err)
	}
	_, err = conn.ExecContext(ctx, `DETACH DATABASE backup`)
	return l, err
}

// carryClock writes the store's time to the backup if it is the later one.
const carryClock = `INSERT INTO backup.settings (name, value)
	SELECT name, value FROM main.settings WHERE name = $1
	ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)`

const counts = `SELECT
	(SELECT count(*) FROM main.accounts s WHERE NOT EXISTS (SELECT 1 FROM backup.accounts b WHERE b.id = s.id)),
	(SELECT count(*) FROM main.credentials s WHERE NOT EXISTS (SELECT 1 FROM backup.credentials b WHERE b.id = s.id)),
	(SELECT count(*) FROM main.keys s WHERE NOT EXISTS (SELECT 1 FROM backup.keys b WHERE b.id = s.id AND b.digest = s.digest)),
	(SELECT count(*) FROM main.accounts s JOIN backup.accounts b ON b.id = s.id WHERE s.updated_at > b.updated_at)
	+ (SELECT count(*) FROM main.credentials s JOIN backup.credentials b ON b.id = s.id WHERE s.updated_at > b.updated_at)
	+ (SELECT count(*) FROM main.keys s JOIN backup.keys b ON b.id = s.id WHERE s.revoked_at <> 0 AND b.revoked_at = 0
		OR s.expires_at <> 0 AND (b.expires_at = 0 OR s.expires_at < b.expires_at))`

// live is whether a key works at $1 or later, for the three tables of a schema.
func live(key, credential, account string) string {
	return fmt.Sprintf(`(%[1]s.revoked_at = 0 AND (%[1]s.expires_at = 0 OR %[1]s.expires_at > $1)
		AND (%[1]s.unused_expires_at = 0 OR %[1]s.unused_expires_at > $1 OR %[1]s.first_used_at <> 0)
		AND %[2]s.active AND %[2]s.deleted_at = 0 AND (%[2]s.expires_at = 0 OR %[2]s.expires_at > $1)
		AND %[3]s.active AND %[3]s.deleted_at = 0)`, key, credential, account)
}

var (
	joined = `FROM main.keys s JOIN main.credentials c ON c.id = s.credential_id JOIN main.accounts a ON a.id = c.account_id
		JOIN backup.keys b ON b.id = s.id JOIN backup.credentials bc ON bc.id = b.credential_id JOIN backup.accounts ba ON ba.id = bc.account_id
		WHERE NOT ` + live("s", "c", "a") + ` AND ` + live("b", "bc", "ba")
	countRevived = `SELECT count(*) ` + joined
	listRevived  = `SELECT s.id, c.id, a.id, s.revoked_at, s.revoked_reason ` + joined + ` ORDER BY s.revoked_at DESC, s.id LIMIT $2`
)

// read fills in what the attached backup lacks.
func (l *Losses) read(ctx context.Context, conn *sql.Conn) (err error) {
	if l.Seen, err = seen(ctx, conn, "main"); err != nil {
		return err
	}
	if l.BackupSeen, err = seen(ctx, conn, "backup"); err != nil {
		return err
	}
	err = conn.QueryRowContext(ctx, counts).Scan(&l.Accounts, &l.Credentials, &l.Keys, &l.Changed)
	if err != nil {
		return err
	}
	clock, _ := keystore.NewClock(l.Seen)
	now := int64(clock.Now())
	if err := conn.QueryRowContext(ctx, countRevived, now).Scan(&l.RevivedCount); err != nil {
		return err
	}
	rows, err := conn.QueryContext(ctx, listRevived, now, MaxRevived)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k RevivedKey
		if err := rows.Scan(&k.ID, &k.CredentialID, &k.AccountID, &k.RevokedAt, &k.RevokedReason); err != nil {
			return err
		}
		l.Revived = append(l.Revived, k)
	}
	return rows.Err()
}

// seen is the latest time that a schema has stored.
func seen(ctx context.Context, conn *sql.Conn, schema string) (keystore.Instant, error) {
	var value []byte
	err := conn.QueryRowContext(ctx, `SELECT value FROM `+schema+`.settings WHERE name = $1`, keystore.ClockSetting).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) || (err == nil && len(value) != 8) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return keystore.Instant(binary.BigEndian.Uint64(value)), nil
}
