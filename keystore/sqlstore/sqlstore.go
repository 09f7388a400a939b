// Package sqlstore is a keystore.Store in SQL: one schema and one set of
// statements for every engine. [OpenSQLite] keeps the store in a file,
// [OpenPostgres] in a database that several processes share.
//
// Reads run on connections of their own and see the last commit. Updates run
// one at a time, several to a commit: see the writer. A function that was
// given a Reader or a Tx must not call Update or Close of the same store: it
// would wait for itself.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var _ keystore.Shared = (*Store)(nil)

// Store is a keystore.Store over an SQL database.
type Store struct {
	engine engine
	gate   *gate
	// lookups serves Lookup only, so that no listing and no backup can keep
	// the request path waiting for a connection.
	lookups *database
	// slots are as many as lookups has connections. Waiting for one here, and
	// not in the pool, ends with the caller's context.
	slots  chan struct{}
	views  *database
	writer *writer

	// closing ends the reads that are running when the store is closed.
	closing context.Context
	cancel  context.CancelCauseFunc

	closeOnce sync.Once
	closeErr  error
}

// newStore starts a store over open databases, with all statements prepared.
func newStore(e engine, lookups, views, writes *database) *Store {
	s := &Store{
		engine: e, gate: newGate(), views: views, writer: newWriter(e, writes),
		lookups: lookups, slots: make(chan struct{}, lookups.Stats().MaxOpenConnections),
	}
	s.closing, s.cancel = context.WithCancelCause(context.Background())
	go s.writer.run()
	return s
}

// Lookup implements keystore.Store.
func (s *Store) Lookup(ctx context.Context, digest keystore.Digest) (*keystore.Grant, error) {
	const op = "look up key"
	if !s.gate.enter() {
		return nil, unavailable(op, errClosed)
	}
	defer s.gate.leave()
	if ctx.Err() != nil {
		return nil, ended(ctx, op)
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ended(ctx, op)
	}
	defer func() { <-s.slots }()

	reading, cancel := s.engine.pointRead(ctx)
	defer cancel()
	grant, err := scanGrant(s.lookups.prepared[lookup].QueryRowContext(reading, digest[:]), digest)
	switch {
	case err == nil:
		return grant, nil
	case errors.Is(err, sql.ErrNoRows):
		return nil, notFound(op)
	case ctx.Err() != nil:
		return nil, ended(ctx, op)
	}
	return nil, unavailable(op, s.engine.explain(err))
}

// View implements keystore.Store.
func (s *Store) View(ctx context.Context, read func(keystore.Reader) error) error {
	const op = "view"
	if !s.gate.enter() {
		return unavailable(op, errClosed)
	}
	defer s.gate.leave()
	ctx, stop := s.whileOpen(ctx)
	defer stop()

	session := newSession(ctx, s.engine, s.views)
	// There is nothing to commit, and nothing to learn from the rollback of a
	// transaction that has only read.
	defer func() { _ = session.rollback() }()
	err := session.begin(func(ctx context.Context) (*sql.Tx, error) { return s.views.BeginTx(ctx, s.engine.view()) })
	if err != nil {
		if session.ctx.Err() != nil {
			return ended(session.ctx, op)
		}
		return unavailable(op, s.engine.explain(err))
	}
	r := &reader{session: session}
	defer r.end()
	return read(r)
}

// Update implements keystore.Store. Concurrent updates share one commit. The
// function runs in the calling goroutine, at its turn in the shared
// transaction, and should be short: the updates behind it wait.
func (s *Store) Update(ctx context.Context, change func(keystore.Tx) error) error {
	if !s.gate.enter() {
		return unavailable("update", errClosed)
	}
	defer s.gate.leave()
	return s.writer.update(ctx, change)
}

// Join implements keystore.Shared, for a store that is not exclusive.
func (s *Store) Join(ctx context.Context, node string) (keystore.Membership, error) {
	if !s.gate.enter() {
		return nil, unavailable("join", errClosed)
	}
	defer s.gate.leave()
	return s.engine.join(ctx, node)
}

// Backup implements keystore.Store. The snapshot is that of the moment at
// which it starts. A backup of a file is restored with [RestoreSQLite].
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	const op = "back up"
	if !s.gate.enter() {
		return unavailable(op, errClosed)
	}
	// Only the snapshot needs the store. The first byte leaves the gate, so
	// that a reader that is slow to take the rest can't hold up Close.
	leave := sync.OnceFunc(s.gate.leave)
	defer leave()
	ctx, stop := s.whileOpen(ctx)
	defer stop()
	err := s.engine.backup(ctx, &afterSnapshot{w: w, leave: leave})
	if err != nil && ctx.Err() != nil {
		return ended(ctx, op)
	}
	return err
}

// afterSnapshot leaves the gate before the first byte is written.
type afterSnapshot struct {
	w     io.Writer
	leave func()
}

func (a *afterSnapshot) Write(p []byte) (int, error) {
	a.leave()
	return a.w.Write(p)
}

// Close implements keystore.Store. It waits for the updates that have begun
// to wait or run, ends the reads that are running, and can be called again.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	empty := s.gate.close()
	s.cancel(errClosed)
	<-empty
	s.writer.stop()
	err := errors.Join(s.lookups.Close(), s.views.Close())
	err = errors.Join(err, s.engine.close(s.writer.db, s.writer.fault() != nil))
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// whileOpen is ctx, ended also when the store is closed.
func (s *Store) whileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(s.closing, func() { cancel(errClosed) })
	return ctx, func() {
		forget()
		cancel(nil)
	}
}

// ended is the answer to a read whose context has ended.
func ended(ctx context.Context, op string) error {
	if cause := context.Cause(ctx); cause == errClosed || cause == errNoAnswer {
		return unavailable(op, cause)
	}
	return unavailable(op, ctx.Err())
}
