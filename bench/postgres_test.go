package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// openPostgres opens a store with n keys in a server of its own, which syncs.
func openPostgres(b *testing.B, n int) (*sqlstore.Store, string) {
	b.Helper()
	dsn := postgrestest.Start(b).NewDatabase(b)
	store := sharePostgres(b, dsn)
	fill(b, store, n)
	return store, dsn
}

func sharePostgres(b *testing.B, dsn string) *sqlstore.Store {
	b.Helper()
	store, err := sqlstore.OpenPostgres(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	return store
}

// BenchmarkPostgresLookup is BenchmarkLookup with PostgreSQL: x-bare is the time
// against a prepared look-up of a row by its primary key.
func BenchmarkPostgresLookup(b *testing.B) {
	const n = 100_000
	store, dsn := openPostgres(b, n)
	bare, err := pgx.Connect(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close(context.Background())
	if _, err := bare.Exec(b.Context(), `CREATE TABLE bare AS SELECT digest AS k, decode(repeat('00', 268), 'hex') AS v FROM grants;
		ALTER TABLE bare ADD PRIMARY KEY (k); ANALYZE`); err != nil {
		b.Fatal(err)
	}
	inTurns(b, "x-bare", 200, 200, func() {
		if _, err := store.Lookup(b.Context(), digestOf(rand.IntN(n))); err != nil {
			b.Fatal(err)
		}
	}, func() {
		digest := digestOf(rand.IntN(n))
		var value []byte
		if err := bare.QueryRow(b.Context(), `SELECT v FROM bare WHERE k = $1`, digest[:]).Scan(&value); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkPostgresIssue counts the keys that 64 clients are issued in a second, each
// answered once it is durable, and the transactions of pgbench with as many
// connections to the same server, in turns: of one statement that inserts the rows
// that an issue inserts, and of one that inserts the row of a key alone. Run it with
// -benchtime 5x or more: each run takes some seconds.
func BenchmarkPostgresIssue(b *testing.B) {
	const clients, accounts, period = 64, 1000, 2 * time.Second
	store, dsn := openPostgres(b, 10*accounts)
	keyring := newKeyringOver(b, store, keystore.DefaultCacheSize)
	var ours, same, single []float64
	b.ResetTimer()
	for range b.N {
		ours = append(ours, issuedPerSecond(b, keyring, clients, accounts, period))
		same = append(same, pgbench(b, dsn, sameRows, clients, period))
		single = append(single, pgbench(b, dsn, oneRow, clients, period))
	}
	b.ReportMetric(middle(ours), "issues/s")
	b.ReportMetric(middle(ours)/middle(same), "x-pgbench")
	b.ReportMetric(middle(ours)/middle(single), "x-pgbench-one-row")
}

func middle(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func issuedPerSecond(b *testing.B, keyring *keystore.Keyring, clients, accounts int, period time.Duration) float64 {
	var issued atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(begin) < period {
				issue(b, keyring, accountID(rand.IntN(accounts)))
				issued.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(issued.Load()) / time.Since(begin).Seconds()
}

const (
	sameRows = `\set account random(0, 999)
WITH owner AS (SELECT id, number, email FROM accounts WHERE id = 'customer-' || :account),
	c AS (INSERT INTO credentials (id, account_id, package, roles, active, description, allowed_ips, metadata,
		expires_at, created_at, updated_at, deleted_at)
		SELECT gen_random_uuid()::text, id, '', '', TRUE, '', '', '', 0, 1, 1, 0 FROM owner RETURNING id),
	k AS (INSERT INTO keys (id, credential_id, digest, digest_kind, hint, format, created_at, activates_at, expires_at,
		unused_expires_at, revoked_at, revoked_reason, superseded_by, superseded_at, stops_on_use_of, first_used_at, last_used_at, mailed)
		SELECT gen_random_uuid()::text, id, sha256(id::bytea), 'sha256', 'key_012345678901', 'token', 1, 0, 0, 0, 0, '', '', 0, '', 0, 0, FALSE
		FROM c RETURNING id, credential_id, digest)
INSERT INTO grants (digest, key_id, digest_kind, activates_at, expires_at, unused_expires_at, first_used_at,
		revoked_at, superseded, credential_id, package, roles, allowed_ips, credential_active, credential_expires_at,
		account_id, account_number, account_email, account_active)
	SELECT k.digest, k.id, 'sha256', 0, 0, 0, 0, 0, FALSE, k.credential_id, '', '', '', TRUE, 0, owner.id, owner.number, owner.email, TRUE
	FROM k, owner;
`
	oneRow = `\set credential random(0, 9999)
INSERT INTO keys (id, credential_id, digest, digest_kind, hint, format, created_at, activates_at, expires_at,
		unused_expires_at, revoked_at, revoked_reason, superseded_by, superseded_at, stops_on_use_of, first_used_at, last_used_at, mailed)
	VALUES (gen_random_uuid()::text, '019a0000-0000-7000-8000-' || lpad(:credential::text, 12, '0'), sha256(gen_random_uuid()::text::bytea),
		'sha256', 'key_012345678901', 'token', 1, 0, 0, 0, 0, '', '', 0, '', 0, 0, FALSE);
`
)

var transactionsPerSecond = regexp.MustCompile(`tps = ([0-9.]+)`)

// pgbench is the transactions a second of a script.
func pgbench(b *testing.B, dsn, script string, clients int, period time.Duration) float64 {
	b.Helper()
	path := filepath.Join(b.TempDir(), "script.sql")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		b.Fatal(err)
	}
	out, err := exec.CommandContext(b.Context(), "pgbench", "--no-vacuum", "--protocol", "prepared", "--jobs", "2",
		"--client", strconv.Itoa(clients), "--time", strconv.Itoa(int(period.Seconds())), "--file", path, dsn).CombinedOutput()
	found := transactionsPerSecond.FindSubmatch(out)
	if err != nil || found == nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkPostgresRevocation is a revocation that is answered once each of three
// nodes goes by it.
func BenchmarkPostgresRevocation(b *testing.B) {
	store, dsn := openPostgres(b, 10)
	keyrings := []*keystore.Keyring{newKeyringOver(b, store, keystore.DefaultCacheSize)}
	for range 2 {
		keyrings = append(keyrings, newKeyringOver(b, sharePostgres(b, dsn), keystore.DefaultCacheSize))
	}
	request := keystore.Request{Requirement: &keystore.Requirement{}}
	var took []time.Duration
	b.ResetTimer()
	for i := range b.N {
		b.StopTimer()
		issued, err := keyrings[0].Issue(b.Context(), keystore.Operator(), keystore.Credential{AccountID: accountID(0)})
		if err != nil {
			b.Fatal(err)
		}
		for _, kr := range keyrings {
			if _, v, err := kr.Accept(b.Context(), issued.Text, request); v != keystore.OK {
				b.Fatal(v, err)
			}
		}
		b.StartTimer()
		begin := time.Now()
		if _, err := keyrings[i%3].RevokeKey(b.Context(), issued.Key.ID, ""); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
		for n, kr := range keyrings {
			if _, v, _ := kr.Accept(b.Context(), issued.Text, request); v != keystore.RevokedKey {
				b.Fatalf("node %d: %v", n, v)
			}
		}
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100])/1e6, fmt.Sprintf("p%d-ms", p))
	}
}
