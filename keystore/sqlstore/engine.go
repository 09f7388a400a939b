package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// engine is everything in which one SQL database differs from another. The
// statements are the same for all: they use $1 as placeholder, which SQLite
// and PostgreSQL both read, and RETURNING for what the database assigned.
type engine interface {
	// words translates the column types, and other words, that the schema has in
	// braces.
	words() *strings.Replacer
	// migrations is how the migrations keep their versions, and what else they need.
	migrations() (goose.Dialect, []goose.ProviderOption, error)
	// pointRead is the context with which the caller of ctx reads one row.
	pointRead(ctx context.Context) (context.Context, context.CancelFunc)
	// patience is how long a transaction waits for one answer of the database. Zero
	// means as long as it takes.
	patience() time.Duration
	// view are the options of a transaction that reads one moment.
	view() *sql.TxOptions
	// begin begins a transaction that writes. Until it ends no other does, so that
	// such transactions run one after the other.
	begin(ctx context.Context, db *database) (*sql.Tx, error)
	// classify says what an error of the driver amounts to.
	classify(error) failure
	// explain adds to an error of the driver what an operator can do about it,
	// where that helps.
	explain(error) error
	// committed is called by the writer after each commit, once its updates
	// were answered, with the number of statements that wrote.
	committed(ctx context.Context, db *database, writes int) error
	// exclusive reports whether no other process can change the open store.
	exclusive() bool
	// createWithKey inserts the rows of a credential and of its first key, for an
	// account that is no tombstone, and returns their seq. Without such an account
	// the error is sql.ErrNoRows.
	createWithKey(s *session, rows newRows) (credential, key int64, err error)
	// announce tells other processes what a transaction changes.
	announce(s *session, changed []keystore.Digest) (keystore.Announcement, error)
	// join opens a node's connection to the feed of a store that is shared.
	join(ctx context.Context, node string) (keystore.Membership, error)
	// prune forgets what all other processes know.
	prune(s *session) error
	// backup writes a snapshot of the whole store. It needs nothing of the
	// store from the first byte on.
	backup(ctx context.Context, w io.Writer) error
	// close is the last thing done to a store. The reading connections are
	// closed already. Broken says that a commit failed with an I/O error.
	close(db *database, broken bool) error
}

// failure is what an error of the driver amounts to.
type failure int

const (
	// lost is any error that is not one of the others. It may have ended the
	// transaction, so nothing that follows in it can be trusted.
	lost failure = iota
	// refused is an error of one statement, which changed nothing and left the
	// transaction intact.
	refused
	// again is an error that ended the transaction, without a trace, in favour of
	// another one: the same can be tried again.
	again
	// taken is the violation of a uniqueness. It leaves the transaction intact.
	taken
	// orphaned is the violation of a foreign key: there is no such parent.
	orphaned
	// broken is an I/O error or corruption. What the storage holds from here
	// on is not known.
	broken
)

// errEnded answers the use of a Reader or Tx outside of its function.
var errEnded = errors.New("transaction has ended")

// errClosed answers every method after Close.
var errClosed = errors.New("store is closed")

// unavailable wraps the cause of an operation that gave no answer.
func unavailable(op string, cause error) error {
	return fmt.Errorf("%s: %w: %w", op, keystore.ErrUnavailable, cause)
}

// sentinel wraps err as the contract of keystore.Store names it.
func (f failure) sentinel(op string, err error) error {
	switch f {
	case taken:
		return fmt.Errorf("%s: %w: %w", op, keystore.ErrConflict, err)
	case orphaned:
		return fmt.Errorf("%s: %w: %w", op, keystore.ErrNotFound, err)
	}
	return unavailable(op, err)
}
