package bench

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// BenchmarkDurable issues credentials with their keys, each answered once it is on
// the disk, for accounts at random. The metric x-bare is the time against the least
// that SQLite can do for it: one client's against a transaction of the same rows, that
// of several clients against transactions of the rows of all of them. Both are timed
// in turns, in files with the same content.
func BenchmarkDurable(b *testing.B) {
	for _, keys := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			store := filledStore(b, storePath(b), keys)
			path := filepath.Join(b.TempDir(), "copy.db")
			file, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			if err := store.Backup(b.Context(), file); err != nil {
				b.Fatal(err)
			}
			if err := file.Close(); err != nil {
				b.Fatal(err)
			}
			keyring, bare := newKeyringOver(b, store, keystore.DefaultCacheSize), newBareIssuer(b, path)
			for _, clients := range []int{1, 16, 64} {
				b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
					issueInTurns(b, clients, func() { issue(b, keyring, accountID(mathrand.IntN(keys/10))) },
						func() { bare.issue(b, clients, keys/10) })
				})
			}
		})
	}
}

// BenchmarkDurableStored issues in a store of a million keys, and in one of a thousand in
// turns. The metric x-few is the time in the one against that in the other.
func BenchmarkDurableStored(b *testing.B) {
	const many, few = 1_000_000, 1_000
	large := newKeyringOver(b, filledStore(b, storePath(b), many), keystore.DefaultCacheSize)
	small := newKeyringOver(b, filledStore(b, storePath(b), few), keystore.DefaultCacheSize)
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			const each = 100 // so that a turn has checkpoints of its own
			in := func(keyring *keystore.Keyring, keys int) func() {
				return atOnce(clients, each, func() { issue(b, keyring, accountID(mathrand.IntN(keys/10))) })
			}
			inTurns(b, "x-few", 1, each*clients, in(large, many), in(small, few))
		})
	}
}

// issueInTurns has clients issue, and as many issued in one transaction.
func issueInTurns(b *testing.B, clients int, one, bare func()) {
	const turn = 20
	inTurns(b, "x-bare", 1, turn*clients, atOnce(clients, turn, one), func() {
		for range turn {
			bare()
		}
	})
}

// atOnce has clients do something at once, each that often.
func atOnce(clients, each int, do func()) func() {
	return func() {
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range each {
					do()
				}
			})
		}
		wg.Wait()
	}
}

// bareIssuer writes what an issue writes, and nothing else.
type bareIssuer struct {
	db   *sql.DB
	rows [3]*sql.Stmt
}

func newBareIssuer(b *testing.B, path string) *bareIssuer {
	b.Helper()
	db, err := openBare(path, 8<<10)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return &bareIssuer{db, [3]*sql.Stmt{
		prepared(b, db, `INSERT INTO credentials (id, account_id, package, roles, active, description, allowed_ips, metadata,
			expires_at, created_at, updated_at, deleted_at) VALUES ($1, $2, '', '', TRUE, '', '', '', 0, $3, $3, 0)`),
		prepared(b, db, `INSERT INTO keys (id, credential_id, digest, digest_kind, hint, format, created_at, activates_at, expires_at,
			unused_expires_at, revoked_at, revoked_reason, superseded_by, superseded_at, stops_on_use_of, first_used_at, last_used_at, mailed)
			VALUES ($1, $2, $3, 'sha256', $4, 'token', $5, 0, 0, 0, 0, '', '', 0, '', 0, 0, FALSE)`),
		prepared(b, db, `INSERT INTO grants (digest, key_id, digest_kind, activates_at, expires_at, unused_expires_at, first_used_at,
			revoked_at, superseded, credential_id, package, roles, allowed_ips, credential_active, credential_expires_at,
			account_id, account_number, account_email, account_active)
			VALUES ($1, $2, 'sha256', 0, 0, 0, 0, 0, FALSE, $3, '', '', '', TRUE, 0, $4, $5, $6, TRUE)`),
	}}
}

// issue writes the rows of n keys, each for one of the accounts, and commits them.
func (i *bareIssuer) issue(b *testing.B, n, accounts int) {
	tx, err := i.db.BeginTx(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	var bound [3]*sql.Stmt
	for s := range bound {
		bound[s] = tx.StmtContext(b.Context(), i.rows[s])
	}
	for range n {
		number := mathrand.IntN(accounts)
		account, credential, id := accountID(number), uuid.Must(uuid.NewV7()).String(), rand.Text()[:12]
		digest := sha256.Sum256([]byte(id))
		now := time.Now().UnixMilli()
		for s, values := range [3][]any{
			{credential, account, now},
			{id, credential, digest[:], "key_" + id, now},
			{digest[:], id, credential, account, number, account + "@example.com"},
		} {
			if _, err := bound[s].Exec(values...); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
}

func prepared(b *testing.B, db *sql.DB, text string) *sql.Stmt {
	b.Helper()
	stmt, err := db.PrepareContext(b.Context(), text)
	if err != nil {
		b.Fatal(err)
	}
	return stmt
}
