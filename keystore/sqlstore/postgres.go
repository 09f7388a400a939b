package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	sessionlock "github.com/pressly/goose/v3/lock"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// postgres is the engine of a store that several processes share.
//
// Updates of all processes run one after the other: each transaction that writes
// begins by locking the one row of the table epochs. Every later statement of it
// sees, in READ COMMITTED, what was committed before it, and nothing is committed
// meanwhile; so the transactions are serial, which is more than serializable, and
// epochs become visible in order. What it costs is little, because a process
// commits what waits in groups. The rows of the table nodes are not under the
// lock: a node's lease must not wait for another node's changes.
type postgres struct {
	config *pgx.ConnConfig
	// timeline is that of the log of the server to which writes go: a standby that is
	// promoted begins a new one.
	timeline atomic.Value // of string
	// fed is the timeline of the server whose feed was read last, nil if none was.
	fed atomic.Value // of string
}

const (
	// answerWithin is how long the server may take for one answer.
	answerWithin = 5 * time.Second
	// connectWithin is how long making a connection may take, unless the DSN says
	// otherwise, and connectOneWithin where there is another host to try, which must
	// be reached within a quarter of a lease.
	connectWithin    = 5 * time.Second
	connectOneWithin = time.Second
	// migrateWithin is for how long a process waits for another one that migrates,
	// in seconds.
	migrateWithin = 120
)

// OpenPostgres opens the store in the PostgreSQL database, version 14 or later, that
// dsn names, as libpq's connection strings and URIs do, with their TLS modes, and
// makes its tables if there are none. Any number of processes may share it.
//
// Errors never quote the dsn. A schema that is newer than this program's, or tables
// of something else, are refused with keystore.ErrDamaged. A pooler that does not
// keep sessions, such as PgBouncer in transaction mode, is refused.
func OpenPostgres(ctx context.Context, dsn string) (*Store, error) {
	config, err := ParsePostgres(dsn)
	if err != nil {
		return nil, err
	}
	e := &postgres{config: config}
	e.timeline.Store("")
	if err := e.probe(ctx); err != nil {
		return nil, e.refusal(err)
	}
	var open []*database
	store, err := e.connect(ctx, &open)
	if err != nil {
		for _, db := range open {
			err = errors.Join(err, db.Close())
		}
		return nil, e.refusal(err)
	}
	return store, nil
}

// ParsePostgres reads a dsn as [OpenPostgres] does, and connects to nothing. The
// error does not quote it.
func ParsePostgres(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("api_keys: store postgres: the dsn can't be read%s; write it as in %s", reasonOf(err),
			`"postgres://user@host:5432/database?sslmode=verify-full" or "host=... dbname=... user=..."`)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectWithin
		for _, other := range config.Fallbacks {
			if other.Host != config.Host || other.Port != config.Port {
				config.ConnectTimeout = connectOneWithin
			}
		}
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "caddy api_keys"
	}
	config.ValidateConnect = onPrimary(config.ValidateConnect)
	if network, _ := pgconn.NetworkAddress(config.Host, config.Port); network == "tcp" {
		// A server that went away without a word is noticed within seconds.
		dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}}
		config.DialFunc = dialer.DialContext
	}
	return config, nil
}

// onPrimary refuses a standby, which tells what was true a while ago, before it asks what
// the dsn demands (target_session_attrs).
func onPrimary(demanded pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		err := pgconn.ValidateConnectTargetSessionAttrsPrimary(ctx, conn)
		if err != nil || demanded == nil {
			return err
		}
		return demanded(ctx, conn)
	}
}

// reasonOf is what is wrong with a dsn, where that can be said without quoting it.
func reasonOf(err error) string {
	text := err.Error()
	// What comes before is the dsn, in which every name can stand.
	text = text[strings.LastIndex(text, "`: ")+1:]
	if strings.Contains(text, "unable to read CA file") {
		return " (see sslrootcert)"
	}
	for _, name := range []string{"sslmode", "port", "target_session_attrs", "connect_timeout", "sslrootcert", "sslcert", "service", "channel_binding"} {
		if strings.Contains(text, name) {
			return " (see " + name + ")"
		}
	}
	return ""
}

// refusal is the error of a store that could not be opened.
func (e *postgres) refusal(err error) error {
	return fmt.Errorf("api_keys: store postgres at %s: %w", e.address(), e.explain(err))
}

// address is where the server is, without who connects to which database.
func (e *postgres) address() string {
	_, address := pgconn.NetworkAddress(e.config.Host, e.config.Port)
	return address
}

// connect opens the connections, appends what it opened to opened, and starts the
// store.
func (e *postgres) connect(ctx context.Context, opened *[]*database) (*Store, error) {
	pool := func(connections int, setUp func(context.Context, *pgx.Conn) error) *database {
		db := stdlib.OpenDB(*e.config, stdlib.OptionAfterConnect(setUp))
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		db.SetConnMaxIdleTime(5 * time.Minute)
		database := &database{DB: db}
		*opened = append(*opened, database)
		return database
	}
	writes, lookups, views := pool(1, e.setUpWriting), pool(8, setUpReading), pool(4, setUpReading)
	if err := e.matchSchema(ctx, writes); err != nil {
		return nil, err
	}
	err := errors.Join(
		writes.prepare(ctx, firstRead, statements),
		lookups.prepare(ctx, lookup, lookup+1),
		views.prepare(ctx, firstRead, firstWrite))
	if err != nil {
		return nil, err
	}
	return newStore(e, lookups, views, writes), nil
}

// Every connection is set up alike, whatever the server, the database or the role
// has for defaults. A process that went away while it held the lock of all updates
// loses it within seconds; who waits for it longer answers that the store is
// unavailable. What is answered is durable.
const (
	setUp = `SET timezone = 'UTC'; SET standard_conforming_strings = on; SET statement_timeout = 0`

	setUpWriting = setUp + `; SET lock_timeout = '4s'; SET idle_in_transaction_session_timeout = '5s';
		SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`
)

func setUpReading(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := conn.PgConn().Exec(ctx, setUp).ReadAll()
	return err
}

// setUpWriting also learns the timeline.
func (e *postgres) setUpWriting(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if _, err := conn.PgConn().Exec(ctx, setUpWriting).ReadAll(); err != nil {
		return err
	}
	timeline, err := timelineOf(ctx, conn)
	if err == nil {
		e.timeline.Store(timeline)
	}
	return err
}

// timelineOf is empty where the server does not tell.
func timelineOf(ctx context.Context, conn *pgx.Conn) (timeline string, err error) {
	err = conn.QueryRow(ctx, `SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)`).Scan(&timeline)
	if _, refused := errors.AsType[*pgconn.PgError](err); refused {
		return "", nil
	}
	return timeline, err
}

// matchSchema makes the tables, or upgrades them.
func (e *postgres) matchSchema(ctx context.Context, db *database) error {
	version, err := e.schemaVersion(ctx, db)
	switch {
	case err != nil:
		return err
	case version > schemaVersion:
		return fmt.Errorf("%w: %w", keystore.ErrDamaged, newerSchema(version))
	case version < schemaVersion:
		return foreign(migrate(ctx, e, db.DB, migrations))
	}
	return nil
}

// foreign is the error of a migration, without the text of that, which the
// migrations library quotes. A table that is there already is not ours.
func foreign(err error) error {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return err
	case refusal.Code == duplicateTable:
		return fmt.Errorf("migrate schema: %w: %w", keystore.ErrDamaged, refusal)
	}
	return fmt.Errorf("migrate schema: %w", refusal)
}

// schemaVersion is zero where nothing was ever migrated. It takes no right but to
// read.
func (e *postgres) schemaVersion(ctx context.Context, db *database) (version int64, err error) {
	var there bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, goose.DefaultTablename).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+goose.DefaultTablename+` WHERE is_applied`).Scan(&version)
	return version, err
}

func (e *postgres) words() *strings.Replacer {
	return strings.NewReplacer(
		"{integer}", "BIGINT",
		"{bytes}", "BYTEA",
		"{clustered}", "",
		"{identity}", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
}

// migrations are applied under an advisory lock.
func (e *postgres) migrations() (goose.Dialect, []goose.ProviderOption, error) {
	locker, err := sessionlock.NewPostgresSessionLocker(sessionlock.WithLockTimeout(1, migrateWithin))
	return goose.DialectPostgres, []goose.ProviderOption{goose.WithSessionLocker(locker)}, err
}

func (e *postgres) pointRead(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, answerWithin, errNoAnswer)
}

func (e *postgres) patience() time.Duration { return answerWithin }

func (e *postgres) view() *sql.TxOptions {
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}

// begin waits until no other process writes. A connection that the server ended may
// be found out only here, where nothing is lost by another try.
func (e *postgres) begin(ctx context.Context, db *database) (*sql.Tx, error) {
	options := &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	tx, err := db.BeginTx(ctx, options)
	if err != nil && ctx.Err() == nil {
		tx, err = db.BeginTx(ctx, options)
	}
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, lockEpoch); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx, nil
}

// exclusive is false: others write, too.
func (e *postgres) exclusive() bool { return false }

// The server empties its log itself.
func (e *postgres) committed(context.Context, *database, int) error { return nil }

func (e *postgres) close(db *database, _ bool) error { return db.Close() }

func (e *postgres) classify(err error) failure {
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return lost
	}
	switch refusal.Code {
	case "23505": // unique_violation
		return taken
	case "23503": // foreign_key_violation
		return orphaned
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return again
	}
	switch refusal.Code[:2] {
	case "22", "23", "54": // data exception, integrity constraint, program limit
		return refused
	}
	return lost
}

// explain says what an operator can do. What pgx says of a connection that failed
// begins with who tried to connect to which database; only the cause is kept.
func (e *postgres) explain(err error) error {
	if connecting, ok := errors.AsType[*pgconn.ConnectError](err); ok && connecting.Unwrap() != nil {
		err = fmt.Errorf("connect: %w", connecting.Unwrap())
	}
	refusal, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	if hint := hints[refusal.Code]; hint != "" {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

const duplicateTable = "42P07"

// hints are by SQLSTATE.
var hints = map[string]string{
	"25006":        "the server takes no writes: see default_transaction_read_only of the server, the database and the role",
	"28P01":        "the password is not the role's",
	"28000":        "the server's pg_hba.conf does not let this role in from here, or not without TLS",
	"3D000":        "create the database first",
	"42501":        "give the role the rights that docs/clusters.md lists",
	"53300":        "the server has no more connections to give; a gateway takes up to 14: raise max_connections",
	"53100":        "make room on the server's disk",
	"55P03":        "another process has held the lock of all updates for too long",
	"42P01":        "make the schema that search_path names, and give the role the rights on it that docs/clusters.md lists",
	duplicateTable: "the schema has tables of something else: give the gateway a database or a schema of its own",
}
