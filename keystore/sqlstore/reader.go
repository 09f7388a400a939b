package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// session is one transaction of the database.
type session struct {
	ctx    context.Context
	engine engine
	db     *database
	tx     *sql.Tx
	// bound are the prepared statements as this transaction uses them.
	// Binding one anew for each use would cost memory until the commit.
	bound [statements]*sql.Stmt
	// fault is the error after which this transaction can't be trusted. The
	// database may have rolled it back, and would then run each further
	// statement in a transaction of its own.
	fault error
	// settings are those that were read, or found not to be there, and not written
	// since. Nobody else writes one before the session ends.
	settings map[string][]byte
	// writes counts the statements that wrote; loads those that load, apart.
	writes, loads int

	// watch ends ctx when the database does not answer, and cancel ends it. Both
	// are nil where the engine's patience has no end.
	watch  *time.Timer
	cancel context.CancelFunc
}

// errNoAnswer ends a transaction whose database does not answer.
var errNoAnswer = errors.New("the database does not answer")

// newSession prepares for a transaction under ctx. It ends with commit or rollback.
func newSession(ctx context.Context, e engine, db *database) *session {
	s := &session{ctx: ctx, engine: e, db: db}
	if e.patience() > 0 {
		ctx, cancel := context.WithCancelCause(ctx)
		s.ctx, s.cancel = ctx, func() { cancel(nil) }
		s.watch = time.AfterFunc(e.patience(), func() { cancel(errNoAnswer) })
	}
	return s
}

// await runs what asks the database for an answer.
func (s *session) await(ask func() error) error {
	if s.watch != nil {
		s.watch.Reset(s.engine.patience())
		defer s.watch.Stop()
	}
	return ask()
}

func (s *session) begin(begin func(context.Context) (*sql.Tx, error)) error {
	return s.await(func() (err error) {
		s.tx, err = begin(s.ctx)
		return err
	})
}

func (s *session) commit(commit func(*sql.Tx) error) error {
	err := s.await(func() error { return commit(s.tx) })
	s.end()
	return err
}

// rollback can be called although nothing was begun.
func (s *session) rollback() (err error) {
	if s.tx != nil {
		err = s.await(s.tx.Rollback)
	}
	s.end()
	return err
}

func (s *session) end() {
	if s.cancel != nil {
		s.watch.Stop()
		s.cancel()
	}
}

func (s *session) statement(id statement) *sql.Stmt {
	if s.bound[id] == nil {
		s.bound[id] = s.tx.StmtContext(s.ctx, s.db.prepared[id])
	}
	switch {
	case loadAccount <= id && id <= loadGrant:
		s.loads++
	case firstWrite <= id && id < savepoint:
		s.writes++
	}
	return s.bound[id]
}

func (s *session) exec(id statement, args ...any) (result sql.Result, err error) {
	err = s.await(func() (err error) {
		result, err = s.statement(id).ExecContext(s.ctx, args...)
		return err
	})
	return result, err
}

// failed turns an error of the driver into one of the contract.
func (s *session) failed(op string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return notFound(op)
	}
	if s.ctx.Err() != nil {
		return ended(s.ctx, op)
	}
	if errors.Is(err, errContent) {
		return unavailable(op, err)
	}
	kind := s.engine.classify(err)
	if kind == lost || kind == broken || kind == again {
		s.fault = err
	}
	return kind.sentinel(op, s.engine.explain(err))
}

// reader is the Reader that a function is given for the time of its run.
type reader struct {
	mu sync.Mutex
	// session is nil once the function returned.
	session *session
}

// end makes the reader unusable. It waits for a call that is running.
func (r *reader) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session = nil
}

// with runs do in the reader's session.
func (r *reader) with(op string, do func(*session) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.session
	if s == nil {
		return unavailable(op, errEnded)
	}
	if s.fault != nil {
		return unavailable(op, s.fault)
	}
	if err := do(s); err != nil {
		return s.failed(op, err)
	}
	return nil
}

// one reads a single row.
func one[T any](r *reader, op string, scan func(row) (T, error), id statement, args ...any) (found T, err error) {
	err = r.with(op, func(s *session) error {
		return s.await(func() (err error) {
			found, err = scan(s.statement(id).QueryRowContext(s.ctx, args...))
			return err
		})
	})
	if err != nil {
		var none T
		return none, err
	}
	return found, nil
}

// list reads all rows.
func list[T any](r *reader, op string, scan func(row) (T, error), id statement, args ...any) (found []T, err error) {
	err = r.with(op, func(s *session) error {
		return s.await(func() (err error) {
			found, err = readAll(s, scan, id, args)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func readAll[T any](s *session, scan func(row) (T, error), id statement, args []any) (found []T, err error) {
	rows, err := s.statement(id).QueryContext(s.ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		record, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, record)
	}
	return found, rows.Err()
}

func scanNumber(r row) (number int64, err error) {
	err = r.Scan(&number)
	return number, err
}

// page reads one page: id lists it, and position finds where it starts. Args
// name the list.
func page[T any](r *reader, op string, scan func(row) (T, error), id, position statement, p keystore.Page, args ...any) ([]T, error) {
	after, limit := int64(0), int64(math.MaxInt64)
	if p.Limit > 0 {
		limit = int64(p.Limit)
	}
	if p.After != "" {
		var err error
		if after, err = one(r, op, scanNumber, position, append(args[:len(args):len(args)], p.After)...); err != nil {
			return nil, err
		}
	}
	return list(r, op, scan, id, append(args, after, limit)...)
}

func (r *reader) Account(id string) (*keystore.Account, error) {
	return one(r, "read account", scanAccount, accountByID, id)
}

func (r *reader) AccountByEmail(email string) (*keystore.Account, error) {
	return one(r, "read account by e-mail address", scanAccount, accountByEmail, keystore.EmailKey(email))
}

func (r *reader) Accounts(p keystore.Page) ([]*keystore.Account, error) {
	return page(r, "list accounts", scanAccount, accountPage, accountPosition, p)
}

func (r *reader) Credential(id string) (*keystore.Credential, error) {
	return one(r, "read credential", scanCredential, credentialByID, id)
}

func (r *reader) Credentials(accountID string, p keystore.Page) ([]*keystore.Credential, error) {
	return page(r, "list credentials", scanCredential, credentialPage, credentialPosition, p, accountID)
}

func (r *reader) Key(id string) (*keystore.Key, error) {
	return one(r, "read key", scanKey, keyByID, id)
}

func (r *reader) Keys(credentialID string, p keystore.Page) ([]*keystore.Key, error) {
	return page(r, "list keys", scanKey, keyPage, keyPosition, p, credentialID)
}

func (r *reader) UnendedKeys(credentialID string, now keystore.Instant) ([]*keystore.Key, error) {
	return list(r, "list unended keys", scanKey, unendedKeys, credentialID, int64(now))
}

func (r *reader) UnendedKeysOfAccount(accountID string, now keystore.Instant) ([]*keystore.Key, error) {
	return list(r, "list unended keys of account", scanKey, unendedKeysOfAccount, accountID, int64(now))
}

func (r *reader) CredentialDigests(credentialID string) ([]keystore.Digest, error) {
	return list(r, "list digests of credential", scanDigest, credentialDigests, credentialID)
}

func (r *reader) AccountDigests(accountID string) ([]keystore.Digest, error) {
	return list(r, "list digests of account", scanDigest, accountDigests, accountID)
}

func scanSetting(r row) (value []byte, err error) {
	err = r.Scan(&value)
	if err == nil && value == nil {
		// An empty value that was set is not the same as none.
		value = []byte{}
	}
	return value, err
}

func (r *reader) Setting(name string) (value []byte, err error) {
	err = r.with("read setting", func(s *session) error {
		value, err = s.setting(name)
		return err
	})
	return bytes.Clone(value), err
}

// setting is the value of a setting, nil if there is none.
func (s *session) setting(name string) (value []byte, err error) {
	if value, known := s.settings[name]; known {
		return value, nil
	}
	err = s.await(func() error {
		value, err = scanSetting(s.statement(setting).QueryRowContext(s.ctx, name))
		return err
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if s.settings == nil {
		s.settings = map[string][]byte{}
	}
	s.settings[name] = value
	return value, nil
}

func (r *reader) NextMail() (*keystore.Mail, error) {
	return one(r, "read next mail", scanMail, nextMail)
}

func (r *reader) DueMails(at keystore.Instant, after string, limit int) ([]*keystore.Mail, error) {
	return list(r, "list mails that are due", scanMail, dueMails, int64(at), after, limit)
}

func (r *reader) CountMails() (int, error) {
	n, err := one(r, "count mails", scanNumber, countMails)
	return int(n), err
}

func (r *reader) Throttle(digest keystore.Digest) (keystore.Instant, error) {
	until, err := one(r, "read throttle", scanNumber, throttle, digest[:])
	if errors.Is(err, keystore.ErrNotFound) {
		return 0, nil
	}
	return keystore.Instant(until), err
}

func (r *reader) Reply(digest keystore.Digest) (*keystore.Reply, error) {
	return one(r, "read reply", scanReply, reply, digest[:])
}

func (r *reader) EveryAccount(after int64, limit int) ([]*keystore.Account, error) {
	return list(r, "list all accounts", scanAccount, everyAccount, after, limit)
}

func (r *reader) EveryCredential(after int64, limit int) ([]*keystore.Credential, error) {
	return list(r, "list all credentials", scanCredential, everyCredential, after, limit)
}

func (r *reader) EveryKey(after int64, limit int) ([]*keystore.Key, error) {
	return list(r, "list all keys", scanKey, everyKey, after, limit)
}
