package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// sqlite is the engine that keeps the store in a file.
type sqlite struct {
	path string
	lock *flock.Flock
	// written is about how many pages were written since the last checkpoint.
	written int
	// stuck is when a full checkpoint last had to give up.
	stuck time.Time
}

// OpenSQLite opens the store in the file at path, and makes it, and the
// directories above it, if there is none. The store is exclusively this one's
// until Close: see [ErrLocked].
//
// The file and its directory belong to the user who runs the program, and to
// nobody else: 0600 and 0700. What is looser, or is a symbolic link, is
// refused. A file that is not a whole store of this program's version or an
// older one is refused with keystore.ErrDamaged and left as it is.
func OpenSQLite(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("api_keys: store %s: %w", path, err)
	}
	if err := ensureDir(path); err != nil {
		return nil, err
	}
	// Before the lock, so that a file that is in use and in disorder is
	// reported as what it is.
	if err := checkFiles(path, checkFile); err != nil {
		return nil, err
	}
	held, err := lock(ctx, path)
	if err != nil {
		return nil, err
	}
	e := &sqlite{path: path, lock: held}
	store, err := e.open(ctx)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return store, nil
}

// open opens the file under the lock.
func (e *sqlite) open(ctx context.Context) (*Store, error) {
	if err := removeStale(e.path); err != nil {
		return nil, refusal(e.path, "%w", err)
	}
	if err := e.ensureFile(ctx); err != nil {
		return nil, err
	}
	var open []*database
	store, err := e.connect(ctx, &open)
	if err != nil {
		for _, db := range open {
			err = errors.Join(err, db.Close())
		}
		return nil, err
	}
	return store, nil
}

// ensureFile judges the file that is there, or makes one.
func (e *sqlite) ensureFile(ctx context.Context) error {
	// Again under the lock: a process that had it may have made the files.
	if err := checkFiles(e.path, checkFile); err != nil {
		return err
	}
	if err := checkFiles(e.path, checkWritable); err != nil {
		return err
	}
	_, err := os.Lstat(e.path)
	if err == nil {
		return checkDamage(e.path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return refusal(e.path, "%w", err)
	}
	if _, err := os.Lstat(e.path + "-wal"); err == nil {
		return damaged(e.path, fmt.Errorf("the file is missing, its log %s-wal is there: restore both from a backup, or remove the log to start anew", e.path))
	}
	if err := e.create(ctx); err != nil {
		return refusal(e.path, "create: %w", err)
	}
	return nil
}

// create makes an empty store. It is made whole under another name, so that
// under its own there is never less than a store.
func (e *sqlite) create(ctx context.Context) (err error) {
	name, err := privateFile(e.path, forCreation)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeStale(e.path))
		}
	}()
	if err := e.initialize(ctx, name); err != nil {
		return err
	}
	if err := syncFile(name); err != nil {
		return err
	}
	if err := os.Rename(name, e.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(e.path))
}

// initialize turns the empty file into a store and leaves no log behind.
func (e *sqlite) initialize(ctx context.Context, name string) (err error) {
	db, err := connect(name, writing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
		return err
	}
	return e.upgrade(ctx, db)
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// upgrade brings the schema up to date. The version is also noted in the
// header of the file, where it is read before the file is opened.
func (e *sqlite) upgrade(ctx context.Context, db *database) error {
	if err := migrate(ctx, e, db.DB, migrations); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	_, err := checkpoint(ctx, db, "TRUNCATE")
	return err
}

// connect opens the connections, appends what it opened to opened, and starts
// the store.
func (e *sqlite) connect(ctx context.Context, opened *[]*database) (*Store, error) {
	var pools [3]*database
	for i, use := range []use{writing, lookingUp, viewing} {
		db, err := connect(e.path, use)
		if err != nil {
			return nil, refusal(e.path, "%w", err)
		}
		*opened = append(*opened, db)
		pools[i] = db
	}
	writes, lookups, views := pools[0], pools[1], pools[2]
	if err := e.matchSchema(ctx, writes); err != nil {
		return nil, err
	}
	err := errors.Join(
		writes.prepare(ctx, firstRead, statements),
		lookups.prepare(ctx, lookup, lookup+1),
		views.prepare(ctx, firstRead, firstWrite))
	if err != nil {
		return nil, e.unreadable(err)
	}
	return newStore(e, lookups, views, writes), nil
}

// matchSchema upgrades an older schema. A newer one is found here only if a
// crash left its version in the log.
func (e *sqlite) matchSchema(ctx context.Context, db *database) error {
	var version int64
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return e.unreadable(err)
	}
	switch {
	case version > schemaVersion:
		return damaged(e.path, newerSchema(version))
	case version < schemaVersion:
		if err := e.upgrade(ctx, db); err != nil {
			return e.unreadable(err)
		}
	}
	return nil
}

// unreadable tells a file that has the wrong content from one that could not
// be read just now.
func (e *sqlite) unreadable(err error) error {
	switch code(err) & 0xff {
	case codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB, codes.SQLITE_ERROR:
		return damaged(e.path, fmt.Errorf("%w: %s", err, restore))
	}
	return refusal(e.path, "%w", e.explain(err))
}

// use is what a pool of connections is for.
type use struct {
	connections int
	// cache is what each connection adds to the page cache, in KiB, of which the
	// memory allocator makes twice as many. All connections of the process share it, as
	// SQLite is built here: one with less than it added takes new memory for a page
	// and has to give it back after the read where the others have used up all there
	// is, and one with more takes the page that was not used for the longest time. So
	// only who adds little gets a part again after large transactions. A commit drops
	// the pages of the readers; what makes reads fast is the system's cache.
	cache int
	// spill is the number of pages beyond which the cache writes changed ones to the
	// log before the commit, if it is full. Those that change again are written there
	// once more, and the commit then has to read and check all that came after them.
	spill int
	// lock is how a transaction begins.
	lock     string
	readOnly bool
}

var (
	// One connection writes, and takes the write lock when it begins: taking
	// it later could fail, with the snapshot that was read outdated.
	// A group of updates changes up to a thousand pages, one of an import 1,500.
	writing = use{connections: 1, cache: 512, spill: 2048, lock: "immediate"}
	// A look-up computes more than it waits, so more connections than
	// processors would only cost memory.
	lookingUp = use{connections: max(2, runtime.GOMAXPROCS(0)), cache: 8, lock: "deferred", readOnly: true}
	viewing   = use{connections: 8, cache: 8, lock: "deferred", readOnly: true}
	// SQLite takes a copy for a write, though it writes another file.
	copying = use{connections: 1, cache: 2 << 10, lock: "deferred"}
)

// connect makes a pool. It opens no connection.
func connect(path string, u use) (*database, error) {
	connector, err := driver.NewConnector(u.dsn(path))
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(u.connections)
	db.SetMaxIdleConns(u.connections)
	return &database{DB: db}, nil
}

// dsn names the file and how its connections are set up. The file is never
// created here, and never mapped into memory: the system reads ahead in a
// mapping, which makes a look-up in a large cold file slower by far.
func (u use) dsn(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // A drive letter.
	}
	pragmas := []string{
		"busy_timeout(5000)", // another program's lock, such as a backup tool's
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(ON)",
		"temp_store(MEMORY)",
		"mmap_size(0)",
		"trusted_schema(OFF)",
		"secure_delete(FAST)",   // what a deletion replaces is overwritten
		"wal_autocheckpoint(0)", // see committed
		fmt.Sprintf("cache_size(-%d)", u.cache),
		fmt.Sprintf("query_only(%t)", u.readOnly),
	}
	if u.spill > 0 {
		pragmas = append(pragmas, fmt.Sprintf("cache_spill(%d)", u.spill))
	}
	query := url.Values{
		"mode":    {"rw"},
		"_dqs":    {"0"},
		"_txlock": {u.lock},
		"_pragma": pragmas,
	}
	return "file://" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode()
}

func (e *sqlite) words() *strings.Replacer {
	return strings.NewReplacer(
		"{integer}", "INTEGER",
		"{bytes}", "BLOB",
		// The row's own number: the highest there is plus one.
		"{identity}", "INTEGER NOT NULL PRIMARY KEY",
		// The rows are in the tree of the primary key itself.
		"{clustered}", "WITHOUT ROWID")
}

func (e *sqlite) migrations() (goose.Dialect, []goose.ProviderOption, error) {
	return goose.DialectSQLite3, nil, nil
}

// exclusive is what the lock is for.
func (e *sqlite) exclusive() bool { return true }

// pointRead does without the caller's context: to watch it, database/sql and
// the driver start a goroutine each, which costs a third of a read that is over
// in microseconds anyway.
func (e *sqlite) pointRead(context.Context) (context.Context, context.CancelFunc) {
	return context.Background(), func() {}
}

// patience has no end: a file answers or fails.
func (e *sqlite) patience() time.Duration { return 0 }

func (e *sqlite) view() *sql.TxOptions { return &sql.TxOptions{ReadOnly: true} }

// begin takes SQLite's lock for the one connection that writes.
func (e *sqlite) begin(ctx context.Context, db *database) (*sql.Tx, error) {
	return db.BeginTx(ctx, nil)
}

// There is nobody to tell anything.
func (e *sqlite) announce(*session, []keystore.Digest) (keystore.Announcement, error) {
	return keystore.Announcement{}, nil
}

func (e *sqlite) prune(*session) error { return nil }

func (e *sqlite) join(context.Context, string) (keystore.Membership, error) {
	return nil, unavailable("join", errors.New("a file has no cluster"))
}

// code is SQLite's extended result code, 0 if err is not SQLite's.
func code(err error) int {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return 0
}

func (e *sqlite) classify(err error) failure {
	switch code := code(err); code {
	case codes.SQLITE_CONSTRAINT_UNIQUE, codes.SQLITE_CONSTRAINT_PRIMARYKEY, codes.SQLITE_CONSTRAINT_ROWID:
		return taken
	case codes.SQLITE_CONSTRAINT_FOREIGNKEY:
		return orphaned
	default:
		switch code & 0xff {
		case codes.SQLITE_CONSTRAINT, codes.SQLITE_TOOBIG, codes.SQLITE_MISMATCH, codes.SQLITE_RANGE:
			return refused
		case codes.SQLITE_IOERR, codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB:
			return broken
		}
	}
	return lost
}

func (e *sqlite) explain(err error) error {
	switch code(err) & 0xff {
	case codes.SQLITE_FULL:
		return fmt.Errorf("%w: nothing was changed; make room on the disk of %s", err, e.path)
	case codes.SQLITE_READONLY, codes.SQLITE_CANTOPEN, codes.SQLITE_PERM:
		return fmt.Errorf("%w: make the file system and the directory of %s writable, and let the process open enough files", err, e.path)
	case codes.SQLITE_IOERR, codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB:
		return fmt.Errorf("%w: check the disk of %s, and that it is not full, and restart; if the store is then refused with room on a sound disk, restore a backup", err, e.path)
	case codes.SQLITE_BUSY:
		return fmt.Errorf("%w: another program keeps %s locked; end it", err, e.path)
	}
	return err
}

const (
	// checkpointAfter is about the number of pages that are written between two
	// checkpoints: what one part of the log's index has room for. Pages that change
	// several times meanwhile are written to the file once.
	checkpointAfter = 4000
	// pagesOfCommit is how many pages a commit writes beside one for each statement:
	// those that all rows of a table go to.
	pagesOfCommit = 7
	// logLimit is the length of the log, in pages, at which it is worth
	// waiting for readers to get it emptied: 64 MiB.
	logLimit = 1 << 14
	// stuckFor is how long not to wait again after waiting in vain.
	stuckFor = 10 * time.Second
)

// committed moves the log into the database from time to time. SQLite would
// do so itself, inside a commit, where the callers wait for it, and where an
// I/O error is dropped; and it would never empty a log that readers keep in
// use without a gap.
func (e *sqlite) committed(ctx context.Context, db *database, writes int) error {
	e.written += writes + pagesOfCommit
	if e.written < checkpointAfter {
		return nil
	}
	e.written = 0
	length, err := checkpoint(ctx, db, "PASSIVE")
	if err != nil || length < logLimit || time.Since(e.stuck) < stuckFor {
		return err
	}
	return e.emptyLog(ctx, db)
}

// emptyLog waits a moment for readers to leave the log, and truncates it.
func (e *sqlite) emptyLog(ctx context.Context, db *database) error {
	if _, err := db.ExecContext(ctx, "PRAGMA busy_timeout = 100"); err != nil {
		return err
	}
	length, err := checkpoint(ctx, db, "TRUNCATE")
	if err == nil && length != 0 {
		e.stuck = time.Now()
	}
	_, err2 := db.ExecContext(ctx, "PRAGMA busy_timeout = 5000")
	return errors.Join(err, err2)
}

// checkpoint moves what it can of the log into the database, and returns how
// many pages the log has now. Readers in its way are no error.
func checkpoint(ctx context.Context, db *database, mode string) (length int, err error) {
	var busy, moved int
	err = db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &length, &moved)
	if err != nil && code(err)&0xff == codes.SQLITE_BUSY {
		return 0, nil
	}
	return length, err
}

// close empties the log, closes the file and lets the store go. After a failed
// commit the log is left for a restart to judge.
func (e *sqlite) close(db *database, broken bool) error {
	var err error
	if !broken {
		_, err = checkpoint(context.Background(), db, "TRUNCATE")
	}
	return errors.Join(err, db.Close(), e.lock.Close())
}
